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
        lengths, complete = labels.lengths, labels.complete
        relevance = (-lengths.log() / self._temperature).masked_fill(~complete, -torch.inf)
        # Not a number where no sample of the column is complete.
        target = relevance.softmax(dim=0).nan_to_num(0.0)
        # [first, others, samples]
        others = complete[None] | (lengths[None] >= lengths[:, None])
        others |= torch.eye(len(scores), dtype=torch.bool, device=scores.device)[:, :, None]
        whole = scores[None, :, None].masked_fill(~others, -torch.inf).logsumexp(dim=1)
        cross_entropy = (target * (whole - scores[:, None])).sum()
        return cross_entropy / complete.any(dim=0).sum().clamp(min=1)
