"""What a loss is."""

from typing import Protocol

from torch import Tensor

from rankserve.trainer.labels import ListLabels


class Loss(Protocol):
    """The loss of one list."""

    def __call__(self, scores: Tensor, labels: ListLabels) -> Tensor:
        """A scalar of the dtype of ``scores`` [items], where higher means sooner."""
        ...
