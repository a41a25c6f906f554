"""Score -> expected output length, learnt from validation prompts."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import isotonic_regression

from rankserve.exporter.agreement import Scores
from rankserve.records.prompts import PromptRecord
from rankserve.records.ranker_version import Calibration

_MAX_KNOTS = 24
_MIN_PROMPTS_PER_KNOT = 20


def calibrate(scores: Scores, records: Sequence[PromptRecord]) -> Calibration:
    """Median and 90th percentile of the output length by score.

    Prompts are grouped by score into knots of equal size; each knot's quantiles are over all answers of its
    prompts, then made non-increasing by isotonic regression.

    Args:
        scores: [records].
        records: prompts with the lengths of one LLM.
    """
    order = np.argsort(scores, kind="stable")
    groups = np.array_split(order, max(1, min(_MAX_KNOTS, len(order) // _MIN_PROMPTS_PER_KNOT)))
    # Equal scores cannot be told apart: they share a knot.
    knots: dict[float, list[int]] = {}
    for group in groups:
        knots.setdefault(float(np.median(scores[group])), []).extend(group.tolist())
    lengths = [
        np.concatenate([np.asarray(records[row].output_lengths) for row in rows]) for rows in knots.values()
    ]
    weights = [len(rows) for rows in knots.values()]
    return Calibration(
        scores=tuple(knots),
        tokens_p50=_non_increasing([np.quantile(each, 0.5) for each in lengths], weights),
        tokens_p90=_non_increasing([np.quantile(each, 0.9) for each in lengths], weights),
    )


def _non_increasing(values: Sequence[np.floating], weights: Sequence[int]) -> tuple[float, ...]:
    fitted: npt.NDArray[np.float64] = isotonic_regression(
        np.asarray(values, dtype=np.float64),
        sample_weight=np.asarray(weights, dtype=np.float64),
        increasing=False,
    )
    return tuple(round(float(value), 1) for value in fitted)
