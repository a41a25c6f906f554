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
