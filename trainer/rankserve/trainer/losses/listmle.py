"""ListMLE: the negative log-likelihood of the true order under the Plackett-Luce model (Xia et al. 2008)."""

import torch
from torch import Tensor

from rankserve.trainer.labels import ListLabels


class ListMLE:
    """Items are drawn one after the other, each with probability proportional to exp(score) among those left.

    The loss is the negative log-probability of drawing them by rising length, divided by the number of
    draws so that the list size does not change its scale. Of several samples each is such a draw of the
    whole list.

    Items of equal length have no true order. Each is charged as though it were drawn first of its group, so
    all its equals stay in the denominator (Breslow's treatment of ties in the same likelihood, that of Cox's
    regression). That needs no random order, gives the same loss for every permutation of the list, and
    draws equal lengths to equal scores. Without ties it is plain ListMLE.

    A cut answer is what Cox's regression calls censored: it is never drawn, and it stands in the denominator
    of each draw of a length up to its own, which it is known to exceed. Against longer ones its place is
    unknown, and it has no part in their draws.
    """

    def __call__(self, scores: Tensor, labels: ListLabels) -> Tensor:
        lengths, draws = labels.lengths.T, labels.complete.T
        # [samples, drawn, left]; whatever is absent is left only to itself, so that no row is empty.
        left = lengths[:, None, :] >= lengths[:, :, None]
        left |= torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        remaining = scores.masked_fill(~left, -torch.inf).logsumexp(dim=2)
        return ((remaining - scores) * draws).sum() / draws.sum().clamp(min=1)
