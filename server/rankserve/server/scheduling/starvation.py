"""Starvation prevention: when a waiting request becomes due, and what that gives it.

Two bounds, each optional. The paper's counter (Fu et al. 2024, section 4.3, algorithm 1): a request that was
in no batch for ``threshold_steps`` steps is promoted and protected for ``quantum_steps`` executed ones. And a
bound in time, whose meaning does not drift with the load: a request is due ``max_wait_s`` after it began to
wait.
"""

from dataclasses import dataclass

from sortedcontainers import SortedKeyList

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


class StarvationClock:
    """Watches waiting requests and says which have become due. Every operation is O(log n)."""

    def __init__(self, settings: StarvationSettings) -> None:
        self._settings = settings
        self._by_time = SortedKeyList(key=lambda r: (r.waiting_since_s, r.sequence))
        self._by_step = SortedKeyList(key=lambda r: (r.waiting_since_step, r.sequence))

    def watch(self, request: Request) -> None:
        if self._settings.max_wait_s is not None:
            self._by_time.add(request)
        if self._settings.threshold_steps:
            self._by_step.add(request)

    def forget(self, request: Request) -> None:
        if self._settings.max_wait_s is not None:
            self._by_time.remove(request)
        if self._settings.threshold_steps:
            self._by_step.remove(request)

    def take_due(self, now_s: float, step: int) -> list[tuple[float, Request]]:
        """Removes the requests that are due; returns each with the moment it became due, earliest first."""
        due: list[tuple[float, Request]] = []
        max_wait_s = self._settings.max_wait_s
        while max_wait_s is not None and self._by_time:
            request = self._by_time[0]
            if request.waiting_since_s + max_wait_s > now_s:
                break
            self.forget(request)
            due.append((request.waiting_since_s + max_wait_s, request))
        while self._settings.threshold_steps and self._by_step:
            request = self._by_step[0]
            if request.waiting_since_step + self._settings.threshold_steps > step:
                break
            self.forget(request)
            due.append((now_s, request))
        return due

    def __len__(self) -> int:
        return max(len(self._by_time), len(self._by_step))
