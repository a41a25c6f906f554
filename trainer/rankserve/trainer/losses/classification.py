"""Classes of length, the paper's baseline, as ordered thresholds of one score (CORAL, Cao et al. 2020)."""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from rankserve.trainer.labels import ListLabels
from rankserve.trainer.losses.length_scale import LengthScale

# Of log lengths around what a prompt tells, in standard deviations of all; about what is left at tau 0.55.
NOISE = 0.7


class Classification:
    """Cross entropy of "longer than this", the mean over thresholds: classification in its ordinal form.

    A classifier proper has an output for each class; a ranker has one score, and is exported with it. So
    neighbouring classes share a threshold: the answer is longer than the k-th with probability
    sigmoid((-score - threshold k) / width), score and threshold on the scale of ``LengthScale``. CORAL learns
    its thresholds; here they are quantiles of the training lengths, so that classes are equally frequent and
    the loss has no parameters. ``width`` is that of logistic noise of standard deviation ``NOISE``.

    A cut answer counts at the thresholds that it reached.
    """

    def __init__(self, training_lengths: ArrayLike, classes: int) -> None:
        lengths = np.asarray(training_lengths, dtype=np.float64)
        shares = np.arange(1, classes) / classes
        # Quantiles coincide where lengths are few; the longest is a threshold that none exceeds.
        tokens = np.unique(np.quantile(lengths, shares, method="lower"))
        self.thresholds = torch.tensor(tokens[tokens < lengths.max()], dtype=torch.float64)
        self._scale = LengthScale.of(lengths)
        self._width = NOISE * math.sqrt(3) / math.pi

    def __call__(self, scores: Tensor, labels: ListLabels) -> Tensor:
        # Not every device knows float64.
        thresholds = self.thresholds.to(labels.lengths.dtype).to(scores.device)
        lengths, censored = labels.lengths[:, :, None], labels.censored[:, :, None]
        longer = (lengths > thresholds) | (censored & (lengths >= thresholds))
        known = labels.complete[:, :, None] | longer
        places = self._scale.standardised(thresholds).to(scores.dtype)
        logits = ((-scores[:, None] - places) / self._width)[:, None, :].expand(longer.shape)
        total = binary_cross_entropy_with_logits(
            logits, longer.to(scores.dtype), weight=known.to(scores.dtype), reduction="sum"
        )
        return total / known.sum().clamp(min=1)
