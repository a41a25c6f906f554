"""Lines of text about work that takes long."""

import time
from collections.abc import Callable

Progress = Callable[[str], None]


class Counter:
    """Reports how far a count is, now and then; says nothing about work that is soon done."""

    def __init__(
        self,
        progress: Progress,
        what: str,
        total: int | None = None,
        every_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress = progress
        self._what = what
        self._total = total
        self._every_s = every_s
        self._clock = clock
        self._count = 0
        self._due_s = clock() + every_s

    def add(self, count: int) -> None:
        """So many more are done."""
        self._count += count
        if self._clock() >= self._due_s:
            self._due_s = self._clock() + self._every_s
            of = f" of {self._total:,}" if self._total is not None else ""
            self._progress(f"{self._what}: {self._count:,}{of} prompts")
