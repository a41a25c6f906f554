"""Who hears of stages."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from rankserve.progress.stage import Stage


class Reporter:
    """Keeps the stages that are open, the innermost last. Says nothing of them itself.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: list[Stage] = []
        self._lock = Lock()

    @contextmanager
    def stage(self, name: str, total: int | None = None, unit: str = "", done: int = 0) -> Iterator[Stage]:
        """A stage for as long as the context is open; what else opens meanwhile is within it."""
        stage = Stage(name, total, unit, done, clock=self._clock, moved=self._moved)
        stopped = True
        try:
            with self._lock:
                for around in self._open[-1:]:
                    around.pause()
                self._open.append(stage)
                self._began(stage)
            yield stage
            stopped = False
        finally:
            with self._lock:
                self._open.remove(stage)
                for around in self._open[-1:]:
                    around.resume()
                self._ended(stage, stopped=stopped)

    def tell(self, line: str) -> None:
        """Shows a line that stays."""

    def close(self) -> None:
        """Nobody reports any more, whatever is still open."""

    def _began(self, stage: Stage) -> None: ...

    def _moved(self, stage: Stage) -> None:
        """A stage has advanced. Called often, and from any thread."""

    def _ended(self, stage: Stage, *, stopped: bool) -> None: ...
