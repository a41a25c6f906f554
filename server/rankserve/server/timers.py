"""What the dispatcher does when time passes and nothing else happens."""

import asyncio
import math
from collections.abc import Callable


class DeadlineTimer:
    """Acts when the next deadline passes.

    Args:
        next_s: when that is, on the clock; None while there is none.
        clock: seconds.
        act: ends what is late.
    """

    def __init__(
        self, next_s: Callable[[], float | None], clock: Callable[[], float], act: Callable[[], object]
    ) -> None:
        self._next_s = next_s
        self._clock = clock
        self._act = act
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = math.inf

    def watch(self, deadline_s: float) -> None:
        """There is a new deadline."""
        if deadline_s < self._due_s:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_s = self._next_s()
        self._due_s = math.inf if due_s is None else due_s
        if due_s is not None:
            delay_s = max(0.0, due_s - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._act()
        self._arm()


class Repeated:
    """Acts once in a while, for as long as it is told to go on.

    Args:
        interval_s: between two acts.
        act: returns nothing; calls `go_on` if there is more to do.
    """

    def __init__(self, interval_s: float, act: Callable[[], None]) -> None:
        self._interval_s = interval_s
        self._act = act
        self._timer: asyncio.TimerHandle | None = None

    def go_on(self, *, at_once: bool = False) -> None:
        """Acts again after the interval, or in the event loop's next turn."""
        if at_once and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            interval_s = 0.0 if at_once else self._interval_s
            self._timer = asyncio.get_running_loop().call_later(interval_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._act()
