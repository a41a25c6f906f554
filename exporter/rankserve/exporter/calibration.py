"""Score -> expected output length, learnt from validation prompts."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import isotonic_regression

from rankserve.exporter.agreement import Scores
from rankserve.exporter.kaplan_meier import censored_quantile
from rankserve.records.prompts import PromptRecord
from rankserve.records.ranker_version import Calibration

_MAX_KNOTS = 24
_MIN_PROMPTS_PER_KNOT = 20


def calibrate(scores: Scores, records: Sequence[PromptRecord]) -> Calibration:
    """Median and 90th percentile of the output length by score.

    Prompts are grouped by score into knots of equal size; each knot's quantiles are over all answers of its
    prompts, then made non-increasing by isotonic regression. Where too many answers of a knot were cut off to
    know a quantile, it is the longest length there: a lower bound.

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
    answers = [answers_of([records[row] for row in rows]) for rows in knots.values()]
    weights = [len(rows) for rows in knots.values()]
    return Calibration(
        scores=tuple(knots),
        tokens_p50=_non_increasing([censored_quantile(*each, 0.5) for each in answers], weights),
        tokens_p90=_non_increasing([censored_quantile(*each, 0.9) for each in answers], weights),
    )


def answers_of(records: Sequence[PromptRecord]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Lengths of all answers of all prompts, and whether each was cut off."""
    lengths = np.concatenate([np.asarray(record.output_lengths, dtype=np.int64) for record in records])
    censored = np.concatenate([np.asarray(record.censored, dtype=np.bool_) for record in records])
    return lengths, censored


def _non_increasing(values: Sequence[float], weights: Sequence[int]) -> tuple[float, ...]:
    fitted: npt.NDArray[np.float64] = isotonic_regression(
        np.asarray(values, dtype=np.float64),
        sample_weight=np.asarray(weights, dtype=np.float64),
        increasing=False,
    )
    return tuple(round(float(value), 1) for value in fitted)
