"""ListMLE: the negative log-likelihood of the true order under the Plackett-Luce model (Xia et al. 2008)."""

import torch
from torch import Tensor


def list_mle(scores: Tensor, labels: Tensor) -> Tensor:
    """The loss of one list, divided by its length so that the list size does not change its scale.

    Items are drawn one after the other, each with probability proportional to exp(score) among those that
    are left; the loss is the negative log-probability of drawing them by falling label.

    Items of equal label have no true order. Each is charged as though it were drawn first of its group, so
    all its equals stay in the denominator (Breslow's treatment of ties in the same likelihood, that of Cox's
    regression). That needs no random order, gives the same loss for every permutation of the list, and
    draws equal labels to equal scores. Without ties it is plain ListMLE.

    Args:
        scores: float [items]; higher means sooner.
        labels: [items]; higher means should come sooner.

    Returns:
        A scalar of the dtype of ``scores``.
    """
    order = torch.argsort(labels, descending=True)
    ordered, ranks = scores[order], labels[order]
    # One position's denominator: the log-sum of exp(score) over it and everything after it.
    remaining = ordered.flip(0).logcumsumexp(0).flip(0)
    first_of_group = torch.searchsorted(-ranks, -ranks, right=False)
    return (remaining[first_of_group] - ordered).mean()
