"""Distillation: a student learns how sure its teachers are of each pair's order (Hinton et al. 2015)."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rankserve.trainer.labels import ListLabels
from rankserve.trainer.losses.interface import Loss


class Distillation:
    """A loss of lengths, mixed with the cross entropy of pairs towards the teacher's probabilities.

    A teacher trained with ``ranknet`` gives item i the probability sigmoid(score i - score j) of being
    shorter than item j, and so does the student. Of a list without lengths, the teacher alone is learned
    from; of one without teacher, the lengths.
    """

    def __init__(self, loss: Loss, weight: float, temperature: float) -> None:
        """Mixes.

        Args:
            loss: of the lengths.
            weight: of the teacher, above 0, up to 1.
            temperature: that the teacher's score differences are divided by.
        """
        self._loss = loss
        self._weight = weight
        self._temperature = temperature

    def __call__(self, scores: Tensor, labels: ListLabels) -> Tensor:
        if labels.teacher is None:
            return self._loss(scores, labels)
        imitation = self._imitation(scores, labels.teacher.to(scores.dtype))
        if self._weight == 1 or not labels.present.any():
            return imitation
        return self._weight * imitation + (1 - self._weight) * self._loss(scores, labels)

    def _imitation(self, scores: Tensor, teacher: Tensor) -> Tensor:
        """The mean over pairs; [items i, items j] holds each pair once for either order."""
        targets = torch.sigmoid((teacher[:, None] - teacher[None, :]) / self._temperature).fill_diagonal_(0)
        pairs = max(1, len(scores) * (len(scores) - 1) // 2)
        return -(targets * logsigmoid(scores[:, None] - scores[None, :])).sum() / pairs
