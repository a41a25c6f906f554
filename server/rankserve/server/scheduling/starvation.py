"""Starvation prevention: when a waiting request becomes due.

Two bounds, each optional. The paper's counter (Fu et al. 2024, section 4.3, algorithm 1): a request that was
in no batch for ``threshold_steps`` steps is promoted and protected for ``quantum_steps`` executed ones. And a
bound in time, whose meaning does not drift with the load. Being due is a matter of looking, nothing is moved:
whoever is due goes before all others of its band.
"""

from dataclasses import dataclass
from typing import Protocol

from rankserve.server.scheduling.request import Request


class WaitBound(Protocol):
    """How long a request may wait, and what that is counted from.

    It is told what happens, in this order for each request: queued, started, produced for each of its
    tokens, evicted and queued again any number of times, ended.
    """

    def bound_s(self, now_s: float) -> float:
        """A request is due once this much has passed since its urgency. The same for all at one moment."""
        ...

    def urgency_s(self, request: Request) -> float:
        """What its wait is counted from; asked whenever it is queued, with `waiting_since_s` set."""
        ...

    def queued(self, request: Request, now_s: float) -> None: ...

    def started(self, request: Request, now_s: float) -> None: ...

    def produced(self, request: Request, count: int) -> None: ...

    def ended(self, request: Request) -> None: ...


@dataclass(slots=True, frozen=True)
class ConstantWaitBound:
    """The same number of seconds always, since it began to wait: arrival, or its last eviction."""

    max_wait_s: float

    def __post_init__(self) -> None:
        if not self.max_wait_s > 0:
            raise ValueError(f"the longest wait must be more than 0 s, got {self.max_wait_s}")

    def bound_s(self, now_s: float) -> float:
        return self.max_wait_s

    def urgency_s(self, request: Request) -> float:
        return request.waiting_since_s

    def queued(self, request: Request, now_s: float) -> None: ...

    def started(self, request: Request, now_s: float) -> None: ...

    def produced(self, request: Request, count: int) -> None: ...

    def ended(self, request: Request) -> None: ...


@dataclass(slots=True, frozen=True)
class StarvationSettings:
    """Bounds on waiting.

    Attributes:
        threshold_steps: steps without being scheduled after which a request is promoted; 0 = off.
        quantum_steps: executed steps for which a promoted request is protected from eviction.
        max_wait_s: seconds of waiting after which a request is promoted; None = off.
    """

    threshold_steps: int = 0
    quantum_steps: int = 10
    max_wait_s: float | None = None

    def __post_init__(self) -> None:
        if self.threshold_steps < 0:
            raise ValueError(
                f"starvation threshold must be 0 (off) or more steps, got {self.threshold_steps}"
            )
        if self.quantum_steps < 1:
            raise ValueError(f"starvation quantum must be at least 1 step, got {self.quantum_steps}")
        if self.max_wait_s is not None:
            ConstantWaitBound(self.max_wait_s)


class Starvation:
    """Says who is due.

    Attributes:
        bound: the bound in time; None = off.
        threshold_steps: the bound in steps; 0 = off.
        quantum_steps: for how many executed steps a request started while due is protected.
    """

    __slots__ = ("bound", "quantum_steps", "threshold_steps")

    def __init__(self, settings: StarvationSettings, bound: WaitBound | None = None) -> None:
        if bound is None and settings.max_wait_s is not None:
            bound = ConstantWaitBound(settings.max_wait_s)
        self.bound = bound
        self.threshold_steps = settings.threshold_steps
        self.quantum_steps = settings.quantum_steps

    @property
    def is_on(self) -> bool:
        return self.bound is not None or self.threshold_steps > 0

    def is_due(self, request: Request, now_s: float, step: int) -> bool:
        return self.is_late(request, now_s) or self.is_passed_over(request, step)

    def is_late(self, request: Request, now_s: float) -> bool:
        return self.bound is not None and now_s - request.urgency_s >= self.bound.bound_s(now_s)

    def is_passed_over(self, request: Request, step: int) -> bool:
        return self.threshold_steps > 0 and step - request.waiting_since_step >= self.threshold_steps
