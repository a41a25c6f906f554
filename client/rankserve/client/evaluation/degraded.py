"""Scores of a ranker that does not exist: the true lengths, made worse until Kendall's tau is what was asked.

For traces without prompts, and to see what a better or a worse ranker would gain. The expected lengths that
come with the scores are calibrated on the same lengths, which no real ranker is: they are as good as such
scores allow.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import kendalltau

TOLERANCE = 0.005
_HALVINGS = 30
# Enough to come near; the last few halvings are on all lengths.
_SAMPLE = 20_000
_MAX_BINS = 100
_MIN_PER_BIN = 20

Numbers = NDArray[np.float64]


@dataclass(slots=True, frozen=True, eq=False)
class DegradedScores:
    """Scores and what they predict, arrays of shape [requests].

    Attributes:
        score: higher = shorter answer, but for the noise.
        expected_tokens: median length at that score, over bins of requests with similar scores.
        expected_tokens_p90: 90th percentile of the same.
        tau: tau-b(-score, length) that was reached; not what was asked where lengths are few or tied.
    """

    score: Numbers
    expected_tokens: Numbers
    expected_tokens_p90: Numbers
    tau: float


def degraded_scores(lengths: NDArray[np.integer], tau: float, seed: int) -> DegradedScores:
    """Scores ``-(log length + sigma x normal noise)`` with sigma such that tau-b is within 0.005 of `tau`.

    Args:
        lengths: [requests], the true output lengths, at least 1.
        tau: 1 = the exact order, 0 = random, -1 = the exact order reversed.
        seed: of the noise.

    Raises:
        ValueError: `tau` is not within -1 and 1, or there are no two different lengths.
    """
    if not -1 <= tau <= 1:
        raise ValueError(f"Kendall's tau is between -1 and 1, got {tau}")
    if len(lengths) == 0 or lengths.min() == lengths.max():
        raise ValueError("needs at least two different output lengths to order requests by")
    logs = np.log(lengths)
    noise = np.random.default_rng(seed).normal(scale=logs.std(), size=len(lengths))
    exact = abs(tau) == 1
    mixture = math.copysign(1.0, tau) * logs if exact else _mixture(lengths, logs, noise, tau)
    p50, p90 = _calibrated(-mixture, lengths)
    return DegradedScores(-mixture, p50, p90, _tau(mixture, lengths))


def _mixture(lengths: NDArray[np.integer], logs: Numbers, noise: Numbers, tau: float) -> Numbers:
    """Lengths and noise in the proportion that has this tau.

    The angle from 0 (lengths alone) by 90 degrees (noise alone) to 180 (lengths reversed) is halved, so that
    chance agreement of the noise is corrected too. Up to a factor this is log length + tan(angle) x noise.
    """
    low, high = 0.0, math.pi
    step = max(1, len(lengths) // _SAMPLE)
    while True:
        sample = slice(None, None, step)
        for _ in range(_HALVINGS):
            angle = (low + high) / 2
            mixture = math.cos(angle) * logs[sample] + math.sin(angle) * noise[sample]
            off = _tau(mixture, lengths[sample]) - tau
            if abs(off) < TOLERANCE / 2:
                break
            low, high = (angle, high) if off > 0 else (low, angle)
        if step == 1:
            return mixture
        # A sample's tau is off by a few thousandths: look around its angle.
        step, low, high = 1, max(0.0, angle - 0.03), min(math.pi, angle + 0.03)


def _tau(predicted: Numbers, lengths: NDArray[np.integer]) -> float:
    return float(kendalltau(predicted, lengths, variant="b").statistic)


def _calibrated(score: Numbers, lengths: NDArray[np.integer]) -> tuple[Numbers, Numbers]:
    """Median and 90th percentile of the length at each score: linear between the medians of score bins.

    Never longer at a higher score (isotonic regression), as the calibration of a ranker version.
    """
    order = np.argsort(score, kind="stable")
    bins = np.array_split(order, max(1, min(_MAX_BINS, len(order) // _MIN_PER_BIN)))
    knots = np.array([np.median(score[members]) for members in bins])
    quantiles = np.array([np.quantile(lengths[members], (0.5, 0.9)) for members in bins])
    p50, p90 = (isotonic_regression(column, increasing=False).x for column in quantiles.T)
    return np.interp(score, knots, p50), np.interp(score, knots, p90)
