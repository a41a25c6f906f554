"""ListNet: cross entropy of who comes first (Cao et al. 2007)."""

import torch
from torch import Tensor

from rankserve.trainer.labels import ListLabels


class ListNet:
    """Who comes first, as the lengths have it, against who does as the scores have it.

    By the lengths an item comes first with probability proportional to length^(-1/temperature), by the scores
    with one proportional to exp(score): the "top one" probabilities of the paper, which leaves open how a
    relevance becomes a number. Of several samples the target is their mean.

    A cut answer is never the first by the lengths. It counts among those that an item of known length comes
    before only if it is known to be longer than that one.
    """

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def __call__(self, scores: Tensor, labels: ListLabels) -> Tensor:
        lengths, complete = labels.lengths.T, labels.complete.T
        relevance = (-lengths.log() / self._temperature).masked_fill(~complete, -torch.inf)
        # Not a number where no item is complete.
        target = relevance.softmax(dim=1).nan_to_num(0.0)
        # [samples, first, others]
        others = complete[:, None, :] | (lengths[:, None, :] >= lengths[:, :, None])
        others |= torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        whole = scores.masked_fill(~others, -torch.inf).logsumexp(dim=2)
        cross_entropy = (target * (whole - scores)).sum()
        return cross_entropy / complete.any(dim=1).sum().clamp(min=1)
