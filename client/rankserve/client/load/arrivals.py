"""Arrival processes: at which second of the run each request is sent.

All times are drawn before the run starts, in wall-clock seconds after its start.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
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


@dataclass(slots=True, frozen=True)
class Poisson:
    """Independent arrivals, ``rate`` a second on average: the paper's, and most benchmarks'."""

    rate: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise ValueError(f"a rate is a number of requests per second above 0, got {self.rate}")

    def times(self, workload: Sequence[WorkloadRecord]) -> list[float]:
        draw = random.Random(self.seed)
        return list(accumulate(draw.expovariate(self.rate) for _ in workload))

    def describe(self) -> dict[str, Any]:
        return {"process": "poisson", "rate": self.rate, "seed": self.seed}


@dataclass(slots=True, frozen=True)
class Burst:
    """Everything at once: the paper's burst of simultaneous requests."""

    seed: int = 0

    def times(self, workload: Sequence[WorkloadRecord]) -> list[float]:
        return [0.0] * len(workload)

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
