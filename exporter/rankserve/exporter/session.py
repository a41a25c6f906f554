"""Scores of prompts by an ONNX graph, on the CPU, for the checks."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch

from rankserve.exporter.errors import GateError
from rankserve.exporter.graph import INPUTS, OUTPUT
from rankserve.exporter.tokenization import Batch, Tokens, pad
from rankserve.progress import Stage

_MAX_BATCH_TOKENS = 4096


class GraphScorer:
    """An ONNX graph as ONNX Runtime runs it. Uses as many threads as torch does."""

    def __init__(self, model: onnx.ModelProto, pad_token_id: int) -> None:
        self._pad_token_id = pad_token_id
        self._session = open_session(model)

    def score_batch(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Scores [rows] of one padded batch."""
        scores: npt.NDArray[np.float32] = self._session.run([OUTPUT], dict(zip(INPUTS, batch, strict=True)))[
            0
        ]
        return scores

    def score(self, rows: Sequence[Tokens], scoring: Stage | None = None) -> npt.NDArray[np.float64]:
        """Scores of tokenised prompts, batched with prompts of similar length. Raises as below.

        Args:
            rows: the prompts.
            scoring: is advanced by them.
        """
        batches = _similar_lengths(rows)
        return self.score_in_batches(rows, batches if scoring is None else _counted(batches, scoring))

    def score_in_batches(
        self, rows: Sequence[Tokens], batches: Iterable[Sequence[int]], *, side: str = "right"
    ) -> npt.NDArray[np.float64]:
        """Scores of tokenised prompts [rows] in given batches, each a sequence of row numbers.

        Raises:
            GateError: a score is not finite; such scores have no order that a gate could judge.
        """
        scores = np.full(len(rows), np.nan)
        for batch in batches:
            scores[list(batch)] = self.score_batch(
                pad([rows[row] for row in batch], self._pad_token_id, side=side)
            )
        if bad := np.count_nonzero(~np.isfinite(scores)):
            raise GateError(
                f"the graph gives {bad} of {len(rows)} prompts scores that are not finite (batches padded on "
                f"the {side}): export with --precision fp32 and without --optimize"
            )
        return scores


def _counted(batches: Sequence[Sequence[int]], scoring: Stage) -> Iterator[Sequence[int]]:
    for batch in batches:
        yield batch
        scoring.advance(len(batch))


def open_session(model: onnx.ModelProto) -> Any:
    """An ONNX Runtime session on the CPU, with as many threads as torch uses."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    # Patterns are kept for every shape ever seen, and here almost every shape is new.
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _similar_lengths(rows: Sequence[Tokens]) -> list[list[int]]:
    batches: list[list[int]] = []
    for row in sorted(range(len(rows)), key=lambda index: len(rows[index])):
        if batches and (len(batches[-1]) + 1) * len(rows[row]) <= _MAX_BATCH_TOKENS:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
