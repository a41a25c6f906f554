"""Work that is under way, and what there is to say about it."""

from collections.abc import Callable
from threading import Lock

from rankserve.progress.pace import Pace
from rankserve.progress.units import duration, speed

# A stage is too young before to say when it will be done.
_SETTLED_S = 3.0


class Stage:
    """Counts what is done. Safe to advance from several threads.

    Args:
        name: what is being done, as in "tokenising alpaca".
        total: how much there is to do; None if nobody knows.
        unit: of the count, in the plural; empty for work that cannot be counted.
        done: what an earlier process did.
        clock: monotonic seconds.
        moved: called after each advance.
    """

    def __init__(
        self,
        name: str,
        total: int | None = None,
        unit: str = "",
        done: int = 0,
        *,
        clock: Callable[[], float],
        moved: Callable[["Stage"], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.total = total
        self.unit = unit
        self._clock = clock
        self._moved = moved
        self._lock = Lock()
        self._done = self._first = done
        self._note = ""
        self._started_s = clock()
        self._within_s = 0.0
        self._paused_s: float | None = None
        self._pace = Pace(self._started_s, done)

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """So many more are done; a note replaces the one before."""
        with self._lock:
            self._reach(self._done + count, note)
        self._moved(self)

    def reach(self, done: int, note: str | None = None) -> None:
        """So many are done in all."""
        with self._lock:
            self._reach(done, note)
        self._moved(self)

    def note(self, text: str) -> None:
        """What to say beside the count, until there is another note."""
        self._note = text

    def pause(self) -> None:
        """A stage within this one begins; its time is not this one's."""
        self._paused_s = self._clock()

    def resume(self) -> None:
        """The stage within has ended."""
        if self._paused_s is not None:
            self._within_s += self._clock() - self._paused_s
            self._paused_s = None

    def beginning(self) -> str:
        """A line for when it begins."""
        left = "" if self.total is None else f", {self.total - self._done:,} {self.unit}"
        return f"{self.name} starts{left}"

    def position(self) -> str:
        """A line for while it is under way."""
        with self._lock:
            return f"{self.name}: {', '.join([self._counted(), *self._outlook(), *self._notes()])}"

    def end(self, *, stopped: bool = False) -> str:
        """A line for when it has ended, or was ended by an exception."""
        with self._lock:
            if self.unit:
                how = f"stopped at {self._counted()} after" if stopped else f"{self._counted()} in"
            else:
                how = "stopped after" if stopped else "done in"
            took = f"{how} {duration(self._elapsed_s())}"
            return f"{self.name}: {', '.join([took, *self._mean_speed(), *self._notes()])}"

    @property
    def done(self) -> int:
        return self._done

    def left_s(self) -> float | None:
        """Seconds that are left, those of stages within included; None if that is not known yet."""
        own_s = self._own_s()
        per_s = self._pace.per_s(own_s)
        if self.total is None or self._done >= self.total or not per_s or self._elapsed_s() < _SETTLED_S:
            return None
        within = self._elapsed_s() / max(own_s - self._started_s, 1e-9)
        return (self.total - self._done) / per_s * within

    def _reach(self, done: int, note: str | None) -> None:
        self._done = done
        if note is not None:
            self._note = note
        self._pace.advance(self._own_s(), done)

    def _counted(self) -> str:
        if not self.unit:
            return f"{duration(self._elapsed_s())} so far"
        if not self.total or self._done == self.total:
            return f"{self._done:,} {self.unit}"
        # Down, so that 100 % is said of nothing that is not done.
        percent = 100 * self._done // self.total
        return f"{self._done:,} of {self.total:,} {self.unit} ({percent} %)"

    def _outlook(self) -> list[str]:
        per_s, left_s = self._pace.per_s(self._own_s()), self.left_s()
        return [
            *([speed(per_s)] if per_s else []),
            *([f"{duration(left_s)} left"] if left_s is not None else []),
        ]

    def _mean_speed(self) -> list[str]:
        advanced, own_s = self._done - self._first, self._own_s() - self._started_s
        return [speed(advanced / own_s)] if advanced > 0 and own_s > 0 else []

    def _notes(self) -> list[str]:
        return [self._note] if self._note else []

    def _elapsed_s(self) -> float:
        return self._clock() - self._started_s

    def _own_s(self) -> float:
        """The time, without what passed in stages within."""
        return (self._clock() if self._paused_s is None else self._paused_s) - self._within_s
