"""How fast a queue moves."""

from collections import deque


class StartRate:
    """The pace at which requests have been starting, for as long as others waited behind them."""

    def __init__(self, window: int = 64) -> None:
        self._starts: deque[float] = deque(maxlen=window)

    def started(self, now_s: float) -> None:
        self._starts.append(now_s)

    def queue_empty(self) -> None:
        """From here on starts follow arrivals, and say nothing of how fast a queue would move."""
        self._starts.clear()

    def interval_s(self, now_s: float) -> float | None:
        """Mean time from one start to the next; None before there is anything to tell it from."""
        if len(self._starts) < 2:
            return None
        return (now_s - self._starts[0]) / len(self._starts)

    def wait_s(self, place: int, now_s: float) -> float | None:
        """Estimated wait of a request with so many ahead; None if there is nothing to estimate from."""
        interval_s = self.interval_s(now_s)
        return None if interval_s is None else (place + 1) * interval_s

    def retry_after_s(self, max_waiting: int, now_s: float) -> float:
        """Time until about a tenth of a full queue has started."""
        interval_s = self.interval_s(now_s)
        return 1.0 if interval_s is None else min(max(interval_s * max_waiting / 10, 0.1), 60.0)
