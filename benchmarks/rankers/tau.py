"""Kendall's tau of several seeds' scores with an interval over prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankserve.trainer.evaluation.bootstrap import interval, resampled_taus
from rankserve.trainer.evaluation.metrics import kendall_tau

Numbers = NDArray[np.float64]


@dataclass(slots=True, frozen=True)
class Tau:
    """A tau, or a difference of two, with its percentile interval at 95 % over prompts drawn anew."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def tau(scores: Sequence[ArrayLike], lengths: Numbers) -> Tau:
    """Mean tau over seeds: the interval is of the mean, each resample the same prompts for all seeds.

    Args:
        scores: for each seed [prompts].
        lengths: [prompts].
    """
    return Tau(_mean_tau(scores, lengths), *interval(_resampled(scores, lengths)))


def advantage(scores: Sequence[ArrayLike], over: ArrayLike, lengths: Numbers) -> Tau:
    """By how much the mean tau of ``scores`` is above that of ``over``, on the same resamples.

    Args:
        scores: for each seed [prompts].
        over: [prompts].
        lengths: [prompts].
    """
    difference = _resampled(scores, lengths) - _resampled([over], lengths)
    return Tau(_mean_tau(scores, lengths) - kendall_tau(over, lengths), *interval(difference))


def _mean_tau(scores: Sequence[ArrayLike], lengths: Numbers) -> float:
    return float(np.mean([kendall_tau(each, lengths) for each in scores]))


def _resampled(scores: Sequence[ArrayLike], lengths: Numbers) -> Numbers:
    taus = [resampled_taus(each, lengths[:, None])["kendall_tau"] for each in scores]
    mean: Numbers = np.mean(taus, axis=0)
    return mean
