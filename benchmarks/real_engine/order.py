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
    """Kendall's tau-b against one answer to each prompt, or a difference of two.

    It is the mean over which answer is taken, with its percentile interval at 95 % over prompts drawn anew.
    """

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


def advantage(scores: ArrayLike, over: ArrayLike, lengths: Numbers) -> Order:
    """By how much the tau of `scores` is above that of `over`, on the same prompts drawn anew."""
    both = [[np.asarray(each)] * lengths.shape[1] for each in (scores, over)]
    ours, theirs = (_tau(each, lengths) for each in both)
    return Order(ours - theirs, *interval(_drawn(both[0], lengths) - _drawn(both[1], lengths)))


def _order(scores: Sequence[Numbers], lengths: Numbers) -> Order:
    return Order(_tau(scores, lengths), *interval(_drawn(scores, lengths)))


def _tau(scores: Sequence[Numbers], lengths: Numbers) -> float:
    """Mean over the samples, of as many scores."""
    return float(np.mean([kendall_tau(each, column) for each, column in zip(scores, lengths.T, strict=True)]))


def _drawn(scores: Sequence[Numbers], lengths: Numbers) -> Numbers:
    """The same of each resample, [resamples]; always of the same prompts."""
    taus = [
        resampled_taus(each, column[:, None])["kendall_tau"]
        for each, column in zip(scores, lengths.T, strict=True)
    ]
    mean: Numbers = np.mean(taus, axis=0)
    return mean
