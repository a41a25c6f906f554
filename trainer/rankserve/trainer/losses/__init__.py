"""The losses that a ranker can be trained with, one a file, behind one interface."""

from typing import Protocol

from numpy.typing import ArrayLike
from torch import Tensor

from rankserve.trainer.config import LossConfig
from rankserve.trainer.labels import ListLabels
from rankserve.trainer.losses.listmle import ListMLE, list_mle

__all__ = ["Loss", "list_mle", "make_loss"]


class Loss(Protocol):
    """The loss of one list."""

    def __call__(self, scores: Tensor, labels: ListLabels) -> Tensor:
        """A scalar of the dtype of ``scores`` [items], where higher means sooner."""
        ...


def make_loss(settings: LossConfig, training_lengths: ArrayLike | None = None) -> Loss:
    """The loss that the settings name, on the labels that they name.

    Args:
        settings: the section ``[loss]`` of a configuration.
        training_lengths: output tokens of the training prompts, or of a sample of them. The pointwise losses
            (``log_length``, ``classification``) take their scale from them; others do without.
    """
    loss = ListMLE()

    def prepared(scores: Tensor, labels: ListLabels) -> Tensor:
        return loss(scores, labels.reduced(settings.label).bucketed(settings.bucket_tokens))

    return prepared
