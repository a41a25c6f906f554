"""Pointwise regression on the logarithm of the length."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from rankserve.trainer.labels import ListLabels
from rankserve.trainer.losses.length_scale import LengthScale


class LogLength:
    """Half the squared error of -score against the standardised log length, the mean over all samples.

    ``huber`` lets errors beyond one standard deviation grow linearly. A cut answer's error counts only where
    the prediction is shorter than what was seen of it.

    The score then is an expected length (see ``LengthScale``), so lengths of several LLMs in one
    training must have the same scale.
    """

    def __init__(self, scale: LengthScale, error: Literal["huber", "squared"]) -> None:
        self._scale = scale
        self._delta = 1.0 if error == "huber" else torch.inf

    def __call__(self, scores: Tensor, labels: ListLabels) -> Tensor:
        present = labels.present
        # Above 0 where the prediction is too long.
        error = -scores[:, None] - self._scale.standardised(labels.lengths).to(scores.dtype)
        error = torch.where(labels.censored, error.clamp(max=0), error) * present
        if self._delta == torch.inf:
            return error.square().sum() / (2 * present.sum().clamp(min=1))
        total = huber_loss(error, torch.zeros_like(error), reduction="sum", delta=self._delta)
        return total / present.sum().clamp(min=1)
