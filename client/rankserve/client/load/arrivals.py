"""Arrival processes: at which second of the run each request is sent.

All times are drawn before the run starts, in wall-clock seconds after its start.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle, islice
from typing import Any, Protocol

from rankserve.records.workload import WorkloadRecord


class Arrivals(Protocol):
    """When the requests of a workload are sent."""

    @property
    def seed(self) -> int:
        """What the times are drawn with; 0 if nothing is drawn."""

    def times(self, workload: Sequence[WorkloadRecord]) -> list[float]:
        """One time a record, in the workload's order."""

    def describe(self) -> dict[str, Any]:
        """The process and its parameters, as JSON."""


class DrawnArrivals(Arrivals, Protocol):
    """Arrivals that do not depend on what the requests are."""

    def draw(self, count: int) -> list[float]:
        """The times of the first ``count`` requests, in order."""


@dataclass(slots=True, frozen=True)
class Poisson:
    """Independent arrivals, ``rate`` a second on average: the paper's, and most benchmarks'."""

    rate: float
    seed: int = 0

    def __post_init__(self) -> None:
        _check_rate(self.rate)

    def times(self, workload: Sequence[WorkloadRecord]) -> list[float]:
        return self.draw(len(workload))

    def draw(self, count: int) -> list[float]:
        draw = random.Random(self.seed)
        return list(accumulate(draw.expovariate(self.rate) for _ in range(count)))

    def describe(self) -> dict[str, Any]:
        return {"process": "poisson", "rate": self.rate, "seed": self.seed}


@dataclass(slots=True, frozen=True)
class Gamma:
    """Arrivals in clumps or evenly: gaps drawn from a gamma distribution.

    Attributes:
        rate: requests a second on average.
        cv: coefficient of variation of the gaps. 1 is Poisson; the larger, the burstier.
    """

    rate: float
    cv: float
    seed: int = 0

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        if not 0.01 <= self.cv <= 100:
            raise ValueError(
                f"a coefficient of variation is from 0.01 (even gaps) to 100 (clumps), got {self.cv}"
            )

    def times(self, workload: Sequence[WorkloadRecord]) -> list[float]:
        return self.draw(len(workload))

    def draw(self, count: int) -> list[float]:
        draw = random.Random(self.seed)
        shape, scale = self.cv**-2, self.cv**2 / self.rate
        return list(accumulate(draw.gammavariate(shape, scale) for _ in range(count)))

    def describe(self) -> dict[str, Any]:
        return {"process": "gamma", "rate": self.rate, "cv": self.cv, "seed": self.seed}


@dataclass(slots=True, frozen=True)
class OnOff:
    """Poisson arrivals at a high rate and a low one in turn, the high one first.

    Attributes:
        high_rate: requests a second for ``high_s`` seconds.
        high_s: how long each high phase lasts.
        low_rate: requests a second for ``low_s`` seconds; may be 0.
        low_s: how long each low phase lasts.
    """

    high_rate: float
    high_s: float
    low_rate: float
    low_s: float
    seed: int = 0

    def __post_init__(self) -> None:
        _check_rate(self.high_rate)
        if not (math.isfinite(self.low_rate) and self.low_rate >= 0):
            raise ValueError(f"the low rate is a number of requests per second from 0, got {self.low_rate}")
        for phase_s in (self.high_s, self.low_s):
            if not (math.isfinite(phase_s) and phase_s > 0):
                raise ValueError(f"a phase is a number of seconds above 0, got {phase_s}")

    def times(self, workload: Sequence[WorkloadRecord]) -> list[float]:
        return self.draw(len(workload))

    def draw(self, count: int) -> list[float]:
        return list(islice(self._arrivals(random.Random(self.seed)), count))

    def describe(self) -> dict[str, Any]:
        return {
            "process": "on-off",
            "high_rate": self.high_rate,
            "high_s": self.high_s,
            "low_rate": self.low_rate,
            "low_s": self.low_s,
            "seed": self.seed,
        }

    def _arrivals(self, draw: random.Random) -> Iterator[float]:
        # A Poisson process of rate 1, its time stretched by each phase's rate.
        phases = cycle(((self.high_rate, self.high_s), (self.low_rate, self.low_s)))
        start_s, left = 0.0, draw.expovariate(1.0)
        for rate, phase_s in phases:
            spent = 0.0
            while spent + left <= rate * phase_s:
                spent += left
                yield start_s + spent / rate
                left = draw.expovariate(1.0)
            left -= rate * phase_s - spent
            start_s += phase_s


@dataclass(slots=True, frozen=True)
class Burst:
    """Everything at once: the paper's burst of simultaneous requests."""

    seed: int = 0

    def times(self, workload: Sequence[WorkloadRecord]) -> list[float]:
        return self.draw(len(workload))

    def draw(self, count: int) -> list[float]:
        return [0.0] * count

    def describe(self) -> dict[str, Any]:
        return {"process": "burst"}


@dataclass(slots=True, frozen=True)
class Recorded:
    """As recorded in the workload (``arrival_s``).

    Attributes:
        speed: recorded seconds that pass in one wall-clock second; a server's time scale, for example.
    """

    speed: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.speed) and self.speed > 0):
            raise ValueError(f"a speed is a number above 0, got {self.speed}")

    def times(self, workload: Sequence[WorkloadRecord]) -> list[float]:
        """Raises ValueError if a record has no ``arrival_s``."""
        times = []
        for record in workload:
            if record.arrival_s is None:
                raise ValueError(f"workload record {record.id!r} has no arrival_s: choose a rate or a burst")
            times.append(record.arrival_s / self.speed)
        return times

    def describe(self) -> dict[str, Any]:
        return {"process": "recorded", "speed": self.speed}


def _check_rate(rate: float) -> None:
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"a rate is a number of requests per second above 0, got {rate}")
