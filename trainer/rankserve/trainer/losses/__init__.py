"""The losses that a ranker can be trained with, one a file, behind one interface.

==================  =========  =====================================================================
``listmle``         listwise   likelihood of the whole order (Xia et al. 2008); the paper's
``listnet``         listwise   cross entropy of who comes first (Cao et al. 2007)
``approx_ndcg``     listwise   NDCG with soft ranks (Qin et al. 2010)
``ranknet``         pairwise   cross entropy of who of two is shorter (Burges et al. 2005)
``margin``          pairwise   hinge of pairs that are no near ties (PARS)
``log_length``      pointwise  regression on the log length
``classification``  pointwise  ordered classes of length; the paper's baseline
==================  =========  =====================================================================

All take a list's scores and its sampled lengths and give a scalar that does not depend on the order in which
the list is given. From an answer that was cut they learn what is known, that it is at least so long, and
nothing else: two items whose order is unknown have no gradient from each other.
"""

from collections.abc import Callable

from numpy.typing import ArrayLike
from torch import Tensor

from rankserve.trainer.config import LossConfig
from rankserve.trainer.labels import ListLabels
from rankserve.trainer.losses.approx_ndcg import ApproxNDCG
from rankserve.trainer.losses.classification import Classification
from rankserve.trainer.losses.distillation import Distillation
from rankserve.trainer.losses.interface import Loss
from rankserve.trainer.losses.length_scale import LengthScale
from rankserve.trainer.losses.listmle import ListMLE
from rankserve.trainer.losses.listnet import ListNet
from rankserve.trainer.losses.log_length import LogLength
from rankserve.trainer.losses.margin import Margin
from rankserve.trainer.losses.ranknet import RankNet

__all__ = ["Distillation", "Loss", "make_loss"]


def make_loss(settings: LossConfig, training_lengths: ArrayLike | None = None) -> Loss:
    """The loss that the settings name, on the labels that they name.

    Args:
        settings: the section ``[loss]`` of a configuration.
        training_lengths: output tokens of the training prompts, or of a sample of them, in any shape and
            without NaN. The pointwise losses take their scale from them; others do without.

    Raises:
        ValueError: a pointwise loss without training lengths.
    """
    loss = _LOSSES[settings.name](settings, training_lengths)

    def on_labels(scores: Tensor, labels: ListLabels) -> Tensor:
        return loss(scores, labels.reduced(settings.label).bucketed(settings.bucket_tokens))

    return on_labels


def _log_length(settings: LossConfig, training_lengths: ArrayLike | None) -> Loss:
    return LogLength(LengthScale.of(_needed(settings, training_lengths)), settings.error)


def _classification(settings: LossConfig, training_lengths: ArrayLike | None) -> Loss:
    return Classification(_needed(settings, training_lengths), settings.classes)


def _needed(settings: LossConfig, training_lengths: ArrayLike | None) -> ArrayLike:
    if training_lengths is None:
        raise ValueError(f"the loss {settings.name} takes its scale from training lengths: pass them")
    return training_lengths


_LOSSES: dict[str, Callable[[LossConfig, ArrayLike | None], Loss]] = {
    "listmle": lambda settings, _: ListMLE(),
    "listnet": lambda settings, _: ListNet(settings.target_temperature),
    "approx_ndcg": lambda settings, _: ApproxNDCG(settings.rank_temperature),
    "ranknet": lambda settings, _: RankNet(settings.near_tie),
    "margin": lambda settings, _: Margin(settings.margin, settings.near_tie),
    "log_length": _log_length,
    "classification": _classification,
}
