"""The hinge loss of pairs that are no near ties (as PARS trains its ranker)."""

import torch
from torch import Tensor

from rankserve.trainer.labels import ListLabels
from rankserve.trainer.losses.pairs import preferences


class Margin:
    """max(0, margin - (score i - score j)), the mean over all pairs where i is known to be shorter than j.

    Pairs of nearly equal lengths are left out: their order is chance. With several samples a pair counts both
    ways, as often as its samples have it so.
    """

    def __init__(self, margin: float, near_tie: float) -> None:
        self._margin = margin
        self._near_tie = near_tie

    def __call__(self, scores: Tensor, labels: ListLabels) -> Tensor:
        weights = preferences(labels, near_tie=self._near_tie, count_ties=False).to(scores.dtype)
        hinge = (self._margin - (scores[:, None] - scores[None, :])).relu()
        return (weights * hinge).sum() / weights.sum().clamp(min=torch.finfo(scores.dtype).tiny)
