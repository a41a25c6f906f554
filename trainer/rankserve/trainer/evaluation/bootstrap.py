"""How far Kendall's tau might be off because other prompts could have been drawn."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankserve.trainer.evaluation.metrics import kendall_tau

RESAMPLES = 1000
CONFIDENCE = 0.95
# Up to so many prompts all pairs are looked at, in products of matrices. Beyond, each resample is sorted,
# which is slower for few prompts, and there are fewer resamples.
_FEW_PROMPTS = 4000
_RESAMPLES_OF_MANY = 200
_BLOCK = 512


def tau_intervals(scores: ArrayLike, lengths: NDArray[np.float64], *, seed: int = 0) -> dict[str, float]:
    """Percentile intervals at 95 % of the figures of ``metrics.tau_report``, over prompts drawn anew.

    Args:
        scores: [prompts].
        lengths: [prompts, samples].
        seed: of the resamples.

    Returns:
        ``kendall_tau_low``, ``kendall_tau_high`` and, with several samples, ``kendall_tau_mean_low``,
        ``kendall_tau_mean_high``.
    """
    found = {}
    for name, taus in resampled_taus(scores, lengths, seed=seed).items():
        found[f"{name}_low"], found[f"{name}_high"] = interval(taus)
    return found


def resampled_taus(
    scores: ArrayLike, lengths: NDArray[np.float64], *, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """The figures of ``metrics.tau_report`` of each resample [resamples].

    1,000 resamples, 200 beyond 4,000 prompts: of the same prompts for the same seed, so that rankers can be
    compared resample by resample. A prompt that is drawn twice makes a pair that is tied in both, which
    tau-b leaves out.
    """
    count = len(lengths)
    resamples = RESAMPLES if count <= _FEW_PROMPTS else _RESAMPLES_OF_MANY
    resampled = _over_all_pairs if count <= _FEW_PROMPTS else _one_by_one
    # How often each prompt is drawn.
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    columns = [resampled(scores, column, times) for column in lengths.T]
    found: dict[str, NDArray[np.float64]] = {"kendall_tau": np.mean(columns, axis=0)}
    if len(columns) > 1:
        found["kendall_tau_mean"] = resampled(scores, lengths.mean(axis=1), times)
    return found


def interval(figures: NDArray[np.float64]) -> tuple[float, float]:
    """The percentile interval at 95 % of resampled figures."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(figures, [tail, 1 - tail])
    return float(low), float(high)


def _one_by_one(scores: ArrayLike, lengths: ArrayLike, times: NDArray[np.int64]) -> NDArray[np.float64]:
    """``kendall_tau`` of each resample [resamples]."""
    scores, lengths = np.asarray(scores), np.asarray(lengths)
    return np.array([kendall_tau(np.repeat(scores, drawn), np.repeat(lengths, drawn)) for drawn in times])


def _over_all_pairs(scores: ArrayLike, lengths: ArrayLike, times: NDArray[np.int64]) -> NDArray[np.float64]:
    """The same from the signs of all pairs, which the resamples share."""
    predicted, actual = -np.asarray(scores, dtype=np.float64), np.asarray(lengths, dtype=np.float64)
    # Whole numbers this small are exact in float32, whose products are fast.
    weights = times.astype(np.float32)
    agreement = np.zeros(len(times))
    for start in range(0, len(actual), _BLOCK):
        block = slice(start, start + _BLOCK)
        signs = np.sign(predicted[block, None] - predicted) * np.sign(actual[block, None] - actual)
        agreement += ((weights @ signs.T.astype(np.float32)) * weights[:, block]).sum(
            axis=1, dtype=np.float64
        )
    untied = _ordered_pairs(predicted, times) * _ordered_pairs(actual, times)
    return np.divide(agreement, np.sqrt(untied), out=np.zeros(len(times)), where=untied > 0)


def _ordered_pairs(values: NDArray[np.float64], times: NDArray[np.int64]) -> NDArray[np.float64]:
    """Pairs of unequal values in each resample, both ways round [resamples]."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) > 0])
    groups = np.add.reduceat(times[:, order], starts, axis=1, dtype=np.float64)
    pairs: NDArray[np.float64] = groups.sum(axis=1) ** 2 - (groups**2).sum(axis=1)
    return pairs
