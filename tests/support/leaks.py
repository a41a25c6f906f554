"""The judge of a server's resources: does it hold more the longer it serves?"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy.stats import theilslopes

# The part of a soak in which caches fill and pools grow.
WARM_UP = 1 / 3
_CONFIDENCE = 0.95


@dataclass(slots=True, frozen=True)
class Slope:
    """How fast something grows in a minute, and its 95 % bounds.

    The bounds take samples as independent, which those of one process are not: two soaks differ by more.
    """

    per_min: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.per_min:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(slots=True, frozen=True)
class Held:
    """What a process holds while nobody asks anything of it."""

    fds: float
    threads: float
    tasks: float


def growth(times_s: Sequence[float], values: Sequence[float], start_s: float) -> Slope:
    """The slope of what was seen from `start_s` on: the median slope of all pairs (Theil, Sen).

    Raises:
        ValueError: nothing was seen twice since.
    """
    seen = [(time_s / 60, value) for time_s, value in zip(times_s, values, strict=True) if time_s >= start_s]
    if len(seen) < 2:
        raise ValueError(f"{len(seen)} samples after the warm-up have no slope")
    minutes, rest = np.array(seen).T
    slope, _, low, high = theilslopes(rest, minutes, _CONFIDENCE)
    return Slope(float(slope), float(low), float(high))


def held_more(before: Held, after: Held, *, tolerance: Held) -> set[str]:
    """The names of what there is more of, by more than the tolerance."""
    return {
        name
        for name in ("fds", "threads", "tasks")
        if getattr(after, name) > getattr(before, name) + getattr(tolerance, name)
    }


def typical(moments: Sequence[Held]) -> Held:
    return Held(
        median(held.fds for held in moments),
        median(held.threads for held in moments),
        median(held.tasks for held in moments),
    )


@dataclass(slots=True)
class Soak:
    """What was seen of a process.

    Attributes:
        times_s, rss_mib: its memory under load; seconds since the start.
        idle: what it held between two loads, from the first to the last.
    """

    times_s: list[float]
    rss_mib: list[float]
    idle: list[Held]

    def memory(self) -> Slope:
        """In MiB, after the warm-up."""
        return growth(self.times_s, self.rss_mib, self.times_s[0] + WARM_UP * self.duration_s)

    @property
    def duration_s(self) -> float:
        return self.times_s[-1] - self.times_s[0]

    def leaks(self, *, max_mib_per_min: float, tolerance: Held) -> set[str]:
        """What it leaks: of "memory", "fds", "threads", "tasks".

        The first idle moments after the warm-up are compared with as many at the end.
        """
        settled = self.idle[int(WARM_UP * len(self.idle)) :]
        some = max(1, len(settled) // 3)
        found = held_more(typical(settled[:some]), typical(settled[-some:]), tolerance=tolerance)
        if self.memory().per_min >= max_mib_per_min:
            found.add("memory")
        return found
