"""What was measured lately."""

from collections import deque

import numpy as np


class RollingValues:
    """Values of the last seconds, at most so many of them.

    Args:
        span_s: how long a value counts.
        most: values kept; with more, the newest.
    """

    def __init__(self, span_s: float = 60.0, most: int = 4096) -> None:
        self._span_s = span_s
        self._values: deque[tuple[float, float]] = deque(maxlen=most)

    def add(self, now_s: float, value: float) -> None:
        self._values.append((now_s, value))

    def quantiles(self, now_s: float, *levels: float) -> list[float | None]:
        """The quantile at each level; None where nothing was measured."""
        while self._values and self._values[0][0] < now_s - self._span_s:
            self._values.popleft()
        if not self._values:
            return [None] * len(levels)
        values = np.fromiter((value for _, value in self._values), np.float64, len(self._values))
        return [float(quantile) for quantile in np.quantile(values, levels)]


class Rate:
    """How fast counters grow, over the last so many looks at them."""

    def __init__(self, looks: int = 10) -> None:
        self._looks: deque[tuple[float, tuple[int, ...]]] = deque(maxlen=looks + 1)

    def per_s(self, now_s: float, *counters: int) -> list[float]:
        """The growth of each counter; 0 at the first look."""
        self._looks.append((now_s, counters))
        first_s, first = self._looks[0]
        elapsed_s = now_s - first_s
        if elapsed_s <= 0:
            return [0.0] * len(counters)
        return [(counter - before) / elapsed_s for counter, before in zip(counters, first, strict=True)]
