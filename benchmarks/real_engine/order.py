"""How well scores order held-out prompts by the lengths of their answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankserve.trainer.evaluation.bootstrap import interval, resampled_taus
from rankserve.trainer.evaluation.metrics import kendall_tau

Numbers = NDArray[np.float64]


@dataclass(slots=True, frozen=True)
class Order:
    """Kendall's tau-b against one answer of each prompt, the mean over which one, and its percentile interval
    at 95 % over prompts drawn anew."""

    tau: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.tau:.3f} ({self.low:.3f} to {self.high:.3f})"


def order(scores: ArrayLike, lengths: Numbers) -> Order:
    """Of scores, higher = shorter.

    Args:
        scores: [prompts].
        lengths: [prompts, samples].
    """
    return _order([np.asarray(scores)] * lengths.shape[1], lengths)


def ceiling(lengths: Numbers) -> Order:
    """The mean of a prompt's other answers orders one: the best that a ranker can hope for.

    Args:
        lengths: [prompts, samples], two samples at least.
    """
    return _order([-np.delete(lengths, i, axis=1).mean(axis=1) for i in range(lengths.shape[1])], lengths)


def another_sample(lengths: Numbers) -> Order:
    """One answer orders another."""
    return _order([-column for column in np.roll(lengths, 1, axis=1).T], lengths)


def _order(scores: Sequence[Numbers], lengths: Numbers) -> Order:
    """One order for each sample, the same prompts drawn anew for all."""
    columns = lengths.T
    taus = [kendall_tau(each, column) for each, column in zip(scores, columns, strict=True)]
    drawn = [
        resampled_taus(each, column[:, None])["kendall_tau"]
        for each, column in zip(scores, columns, strict=True)
    ]
    return Order(float(np.mean(taus)), *interval(np.mean(drawn, axis=0)))
