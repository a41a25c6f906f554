"""How fast a count rises of late."""

from collections import deque
from dataclasses import dataclass

_WINDOW_S = 60.0
_SAMPLE_S = 1.0
# Where an advance takes long: so many samples, however old.
_FEWEST_SAMPLES = 6


@dataclass(slots=True, frozen=True)
class _Sample:
    time_s: float
    count: int
    advances: int


class Pace:
    """The speed of the last minute, or of the last five advances where those took longer.

    Args:
        time_s: when the count began to rise.
        count: what it was then.
    """

    def __init__(self, time_s: float, count: int) -> None:
        self._samples = deque([_Sample(time_s, count, 0)])
        self._last = self._samples[0]

    def advance(self, time_s: float, count: int) -> None:
        """The count is now ``count``."""
        self._last = _Sample(time_s, count, self._last.advances + 1)
        if time_s - self._samples[-1].time_s >= _SAMPLE_S:
            self._samples.append(self._last)
            while len(self._samples) > _FEWEST_SAMPLES and self._samples[1].time_s <= time_s - _WINDOW_S:
                self._samples.popleft()

    def per_s(self, now_s: float) -> float | None:
        """None before the first advance. Falls while nothing advances for longer than usual."""
        first, last = self._samples[0], self._last
        advances = last.advances - first.advances
        if not advances:
            return None
        usual_s = (last.time_s - first.time_s) / advances
        until_s = last.time_s if now_s - last.time_s <= 2 * usual_s else now_s
        return (last.count - first.count) / (until_s - first.time_s) if until_s > first.time_s else None
