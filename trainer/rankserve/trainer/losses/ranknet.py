"""RankNet: the logistic loss of pairs (Burges et al. 2005)."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rankserve.trainer.labels import ListLabels
from rankserve.trainer.losses.pairs import preferences


class RankNet:
    """Cross entropy of which of two items is shorter, the mean over all pairs whose order is known.

    The scores give item i the probability sigmoid(score i - score j). The target is 1, 1/2 for a tie, and
    with several samples the probability that a sample of i is shorter than one of j.
    """

    def __init__(self, near_tie: float) -> None:
        self._near_tie = near_tie

    def __call__(self, scores: Tensor, labels: ListLabels) -> Tensor:
        targets = preferences(labels, near_tie=self._near_tie, count_ties=True).to(scores.dtype)
        difference = scores[:, None] - scores[None, :]
        tiny = torch.finfo(scores.dtype).tiny
        return -(targets * logsigmoid(difference)).sum() / targets.sum().clamp(min=tiny)
