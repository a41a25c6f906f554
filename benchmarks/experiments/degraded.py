"""Scores of any quality: true lengths with as much noise as a wanted Kendall's tau takes."""

from dataclasses import dataclass

import numpy as np
from benchmarks.experiments.prompts import Integers, Numbers
from numpy.random import Generator

from rankserve.trainer.metrics import kendall_tau

# More prompts do not move the noise's third digit, and tau-b costs n log n each time.
_MOST_PROMPTS = 6000
_BISECTIONS = 30
_LARGEST_SIGMA = 30.0
_BINS = 40


@dataclass(slots=True, frozen=True)
class NoisyRanker:
    """Orders by log length + noise.

    Attributes:
        sigma: standard deviation of the noise, in log tokens; inf for a ranker that knows nothing.
        knots: noisy log lengths, ascending, at which the calibration is known.
        median, p90: of the lengths there.
    """

    sigma: float
    knots: Numbers
    median: Numbers
    p90: Numbers

    @classmethod
    def of(cls, lengths: Integers, tau: float, seed: int = 0) -> "NoisyRanker":
        """A ranker that orders these lengths with this tau-b, calibrated on them with noise of its own."""
        draw = np.random.default_rng(seed)
        sigma = _sigma(lengths, tau, draw)
        noisy = _noisy(lengths, sigma, draw)
        order = np.argsort(noisy)
        bins = [part for part in np.array_split(order, _BINS) if len(part)]
        return cls(
            sigma,
            np.array([noisy[part].mean() for part in bins]),
            np.maximum.accumulate([np.percentile(lengths[part], 50) for part in bins]),
            np.maximum.accumulate([np.percentile(lengths[part], 90) for part in bins]),
        )

    def predict(self, lengths: Integers, draw: Generator) -> tuple[Numbers, Numbers, Numbers]:
        """(score, expected tokens, their 90th percentile) for answers of these lengths."""
        noisy = _noisy(lengths, self.sigma, draw)
        median, p90 = np.interp(noisy, self.knots, self.median), np.interp(noisy, self.knots, self.p90)
        return -noisy, median, p90


def _noisy(lengths: Integers, sigma: float, draw: Generator) -> Numbers:
    noise = draw.standard_normal(len(lengths))
    return noise if np.isinf(sigma) else np.log(lengths) + sigma * noise


def _sigma(lengths: Integers, tau: float, draw: Generator) -> float:
    if tau <= 0:
        return float("inf")
    if tau >= 1:
        return 0.0
    some = draw.permutation(lengths)[:_MOST_PROMPTS]
    noise = draw.standard_normal(len(some))
    low, high = 0.0, _LARGEST_SIGMA
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if kendall_tau(-(np.log(some) + middle * noise), some) > tau:
            low = middle
        else:
            high = middle
    return low
