"""ApproxNDCG: NDCG with soft ranks (Qin, Liu and Li 2010)."""

from torch import Tensor

from rankserve.trainer.labels import ListLabels
from rankserve.trainer.losses.pairs import known_shorter


class ApproxNDCG:
    """1 - NDCG, an item's rank being 1 + the sum over others of sigmoid((their score - its) / temperature).

    An item's gain is how many others are known to be longer: linear in its rank by length, since every
    pair of a queue matters, not only its head. The discount is 1 / log2(1 + rank). A temperature of 0.1 is
    the paper's alpha of 10. Of several samples, the mean of the loss on each.

    An item's rank is counted among those only whose order with it is known: neither ties nor cut answers that
    may be shorter or longer. So the score of one has no gradient from the other. A list in which no order is
    known has the loss 0.
    """

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def __call__(self, scores: Tensor, labels: ListLabels) -> Tensor:
        # [samples, items, others]
        shorter = known_shorter(labels).to(scores.dtype)
        compared = shorter + shorter.transpose(1, 2)
        before = ((scores[None, :] - scores[:, None]) / self._temperature).sigmoid()
        gains = shorter.sum(dim=2)
        found = (gains / (2 + (compared * before).sum(dim=2)).log2()).sum(dim=1)
        ideal = (gains / (2 + shorter.sum(dim=1)).log2()).sum(dim=1)
        ordered = ideal > 0
        losses = 1 - found / ideal.masked_fill(~ordered, 1)
        return (losses * ordered).sum() / ordered.sum().clamp(min=1)
