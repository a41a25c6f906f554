"""Progress in a log: whole lines, at both ends of a stage and every so often between."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO

from rankserve.progress.reporter import Reporter
from rankserve.progress.stage import Stage


class Lines(Reporter):
    """Tells of a stage when it begins, when it ends, and in between when it is time for another line.

    Of stages within each other only the innermost is told of in between.

    Args:
        write: takes a line.
        clock: monotonic seconds.
        every_s: between two lines of one stage.
    """

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic, every_s: float = 30.0
    ) -> None:
        super().__init__(clock)
        self._write = write
        self._every_s = every_s
        self._due_s = 0.0

    def tell(self, line: str) -> None:
        with self._lock:
            self._write(line)

    def look(self) -> None:
        """Writes the line that is due, if one is. Advances do so too; this is for work that takes long."""
        if self._clock() < self._due_s:
            return
        with self._lock:
            if self._open and self._clock() >= self._due_s:
                self._write_of(self._open[-1].position())

    def _began(self, stage: Stage) -> None:
        self._write_of(stage.beginning())

    def _moved(self, stage: Stage) -> None:
        self.look()

    def _ended(self, stage: Stage, *, stopped: bool) -> None:
        self._write_of(stage.end(stopped=stopped))

    def _write_of(self, line: str) -> None:
        self._due_s = self._clock() + self._every_s
        self._write(line)


class LinesInTime(Lines):
    """Lines that come in time even from a stage that is one long call: a thread looks once a second."""

    _PERIOD_S = 1.0
    _over: threading.Event | None = None

    def _began(self, stage: Stage) -> None:
        super()._began(stage)
        if self._over is None:
            self._over = threading.Event()
            threading.Thread(target=self._beat, args=[self._over], name="progress", daemon=True).start()

    def _ended(self, stage: Stage, *, stopped: bool) -> None:
        super()._ended(stage, stopped=stopped)
        if not self._open:
            self.close()

    def close(self) -> None:
        if self._over is not None:
            self._over.set()
            self._over = None

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(self._PERIOD_S):
            self.look()


def stamped(stream: TextIO, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Callable[[str], None]:
    """Writes lines to a stream, each with the time in UTC before it."""

    def write(line: str) -> None:
        # Work of hours does not end because nobody reads its log any more.
        with suppress(OSError, ValueError):
            stream.write(f"{now():%Y-%m-%dT%H:%M:%SZ} {line}\n")
            stream.flush()

    return write
