"""How often answers are as short as a calibration says, on prompts that it has not seen."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rankserve.exporter.agreement import Scores
from rankserve.exporter.calibration import answers_of, calibrate
from rankserve.records.prompts import PromptRecord
from rankserve.records.ranker_version import Calibration, Coverage

_FOLDS = 5
_GROUPS = 10
_MIN_PROMPTS_PER_GROUP = 10

Lengths = npt.NDArray[np.float64]


def measure_coverage(scores: Scores, records: Sequence[PromptRecord], *, seed: int) -> Coverage:
    """Cross-fitted: each fifth of the prompts is judged by a calibration fitted to the other four.

    Equal prompts are in one fold; all answers of a prompt count.

    Args:
        scores: [records].
        records: prompts with the lengths of one LLM, at least two different ones.
        seed: of the folds.
    """
    p50, p90 = np.empty(len(records)), np.empty(len(records))
    folds = _folds(records, seed)
    for fold in np.unique(folds):
        held_out, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        calibration = calibrate(scores[rest], [records[row] for row in rest.tolist()])
        p50[held_out], p90[held_out] = _expected(calibration, scores[held_out])
    order = np.argsort(scores, kind="stable")
    groups = np.array_split(order, max(1, min(_GROUPS, len(order) // _MIN_PROMPTS_PER_GROUP)))
    lengths, censored = answers_of(records)
    return Coverage(
        prompts=len(records),
        answers=len(lengths),
        censored=int(censored.sum()),
        p50=_share(p50, records, order),
        p90=_share(p90, records, order),
        p50_by_score=tuple(_share(p50, records, group) for group in groups),
        p90_by_score=tuple(_share(p90, records, group) for group in groups),
    )


def _folds(records: Sequence[PromptRecord], seed: int) -> npt.NDArray[np.int64]:
    """A fold for each record, from 0."""
    _, prompts = np.unique([record.prompt for record in records], return_inverse=True)
    count = int(prompts.max()) + 1
    of_prompt = np.random.default_rng(seed).permutation(count) % min(_FOLDS, count)
    folds: npt.NDArray[np.int64] = of_prompt[prompts]
    return folds


def _expected(calibration: Calibration, scores: Scores) -> tuple[Lengths, Lengths]:
    """p50 and p90 at scores, as the server reads them off: linear between knots, constant beyond."""
    return (
        np.interp(scores, calibration.scores, calibration.tokens_p50),
        np.interp(scores, calibration.scores, calibration.tokens_p90),
    )


def _share(expected: Lengths, records: Sequence[PromptRecord], rows: npt.NDArray[np.int64]) -> float:
    """Share of the rows' answers that are known to be no longer than expected."""
    within = answers = 0
    for row in rows:
        lengths, censored = answers_of([records[row]])
        within += int(((lengths <= expected[row]) & ~censored).sum())
        answers += len(lengths)
    return round(within / answers, 4)
