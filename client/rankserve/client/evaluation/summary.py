"""A distribution in six numbers."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    def of(cls, values: NDArray[np.float64] | Iterable[float]) -> "Summary | None":
        """None for no values."""
        array = values if isinstance(values, np.ndarray) else np.fromiter(values, dtype=np.float64)
        if array.size == 0:
            return None
        p50, p90, p99 = np.percentile(array, [50, 90, 99])
        return cls(float(array.mean()), float(p50), float(p90), float(p99), float(array.max()), array.size)
