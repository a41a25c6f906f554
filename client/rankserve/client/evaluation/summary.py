"""A distribution in six numbers."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(slots=True, frozen=True)
class Summary:
    """Mean, percentiles (linear interpolation), largest value and number of values."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Summary | None":
        """None for no values."""
        array = np.fromiter(values, dtype=np.float64)
        if array.size == 0:
            return None
        p50, p90, p99 = np.percentile(array, [50, 90, 99])
        return cls(float(array.mean()), float(p50), float(p90), float(p99), float(array.max()), array.size)
