"""Does the ONNX graph score like the torch module? Checked over shapes, with padding on either side."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from rankserve.exporter.errors import GateError, SourceError
from rankserve.exporter.session import GraphScorer
from rankserve.exporter.tokenization import Batch, pad
from rankserve.progress import track
from rankserve.trainer.model import RankerModel

# Of a score; of the largest score where scores exceed 1, as fp32 rounds in proportion.
TOLERANCE = 1e-4
_BATCHES = (1, 2, 3, 8, 16)
# Bounds the time of a check of a large model; a batch of one prompt may exceed it.
_MAX_BATCH_TOKENS = 4096


@dataclass(slots=True, frozen=True)
class Parity:
    """Attributes:
    max_difference: largest |ONNX - torch| of any score.
    batches: how many padded batches were compared.
    """

    max_difference: float
    batches: int


def check_parity(
    model: RankerModel, graph: GraphScorer, *, max_length: int, pad_token_id: int, seed: int
) -> Parity:
    """Compares fp32 scores over batches of 1 to 16 and lengths of 1 to `max_length`.

    Raises:
        SourceError: the model itself fails on a prompt of `max_length`.
        GateError: a score differs by more than the tolerance, or is not finite.
    """
    worst = 0.0
    batches = list(_batches(model.config.vocab_size, max_length, pad_token_id, seed))
    for batch in track(batches, "comparing the graph with torch", "batches"):
        worst = max(worst, _difference(model, graph, batch, max_length))
    return Parity(worst, len(batches))


def _difference(model: RankerModel, graph: GraphScorer, batch: Batch, max_length: int) -> float:
    input_ids, attention_mask = batch
    shape = "x".join(map(str, input_ids.shape))
    try:
        with torch.inference_mode():
            expected = model(torch.from_numpy(input_ids), torch.from_numpy(attention_mask)).numpy()
    except (IndexError, RuntimeError) as error:
        raise SourceError(
            f"the model fails on a batch of {shape} tokens ({error}); is max_length {max_length} right?"
        ) from error
    difference = float(np.abs(graph.score_batch(batch) - expected).max())
    limit = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not difference <= limit:
        raise GateError(
            f"the ONNX graph does not score like the torch model: they differ by {difference:.2g} on a "
            f"batch of {shape} tokens, allowed are {limit:.2g}"
        )
    return difference


def _batches(vocabulary: int, max_length: int, pad_token_id: int, seed: int) -> Iterator[Batch]:
    generator = np.random.default_rng(seed)
    lengths = sorted({1, 2, min(7, max_length), min(33, max_length), (max_length + 1) // 2, max_length})
    for length in lengths:
        for rows in sorted({min(rows, max(1, _MAX_BATCH_TOKENS // length)) for rows in _BATCHES}):
            sizes = [length, *generator.integers(1, length + 1, size=rows - 1)]
            prompts = [generator.integers(0, vocabulary, size=size).tolist() for size in sizes]
            # A prompt may end in the pad token itself; the mask alone says where it ends.
            prompts[-1][-1] = pad_token_id
            for side in ("left", "right"):
                yield pad(prompts, pad_token_id, side=side)
