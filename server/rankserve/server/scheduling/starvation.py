"""Starvation prevention: when a waiting request becomes due.

Two bounds, each optional. The paper's counter (Fu et al. 2024, section 4.3, algorithm 1): a request that was
in no batch for ``threshold_steps`` steps is promoted and protected for ``quantum_steps`` executed ones. And a
bound in time, whose meaning does not drift with the load. Being due is a matter of looking, nothing is moved:
whoever is due goes before all others of its band.
"""

import math
from dataclasses import dataclass

from rankserve.server.scheduling.fcfs_bound import FcfsBound
from rankserve.server.scheduling.request import Request


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
        if self.max_wait_s is not None and not self.max_wait_s > 0:
            raise ValueError(f"the longest wait must be more than 0 s, got {self.max_wait_s}")


class Starvation:
    """Says who is due.

    Attributes:
        fcfs_bound: the bound in time that follows FCFS; None = off. It holds among the requests of a tenant,
            since FCFS would not keep tenants apart; the other two in the whole band.
        max_wait_s: the constant bound in time; inf = off.
        threshold_steps: the bound in steps; 0 = off.
        quantum_steps: for how many executed steps a request started while due is protected.
    """

    __slots__ = ("fcfs_bound", "max_wait_s", "quantum_steps", "threshold_steps")

    def __init__(self, settings: StarvationSettings, fcfs_bound: FcfsBound | None = None) -> None:
        self.max_wait_s = math.inf if settings.max_wait_s is None else settings.max_wait_s
        self.fcfs_bound = fcfs_bound
        self.threshold_steps = settings.threshold_steps
        self.quantum_steps = settings.quantum_steps

    @property
    def is_on(self) -> bool:
        return self.bounds_band or self.fcfs_bound is not None

    @property
    def bounds_band(self) -> bool:
        """Whether a bound holds in the whole band."""
        return self.max_wait_s < math.inf or self.threshold_steps > 0

    def is_due(self, request: Request, now_s: float, step: int) -> bool:
        """By a bound that holds in the whole band."""
        late = now_s - request.waiting_since_s >= self.max_wait_s
        return late or (
            self.threshold_steps > 0 and step - request.waiting_since_step >= self.threshold_steps
        )
