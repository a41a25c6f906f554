"""The scale on which a score stands for a length."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor


@dataclass(slots=True, frozen=True)
class LengthScale:
    """A score stands for the length exp(centre - score * spread): standardised, longer is lower.

    Attributes:
        centre: mean of the logarithms of training lengths.
        spread: their standard deviation.
    """

    centre: float
    spread: float

    @classmethod
    def of(cls, lengths: ArrayLike) -> Self:
        """From output tokens of training prompts, in any shape."""
        logs = np.log(np.asarray(lengths, dtype=np.float64))
        return cls(float(logs.mean()), float(logs.std()) or 1.0)

    def standardised(self, lengths: Tensor) -> Tensor:
        """(log length - centre) / spread; 0 where there is no length."""
        return ((lengths.log() - self.centre) / self.spread).nan_to_num(0.0)
