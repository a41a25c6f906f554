"""Log lines on their way to a stream, whose reader may be slow or gone."""

import logging
import os
import threading
from contextlib import suppress
from queue import Full, Queue
from typing import TextIO

import structlog

log = structlog.get_logger(__name__)

_MAX_WAITING = 10_000
# For the last lines of a process. Its end must not depend on a reader that has stopped.
_CLOSE_TIMEOUT_S = 2.0


class LineWriter:
    """Writes lines in a thread of its own: whoever logs, an event loop for one, never waits for the reader.

    Lines that find 10,000 before them are lost.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._descriptor = _descriptor(stream)
        self._lines: Queue[str | None] = Queue(_MAX_WAITING)
        self._thread = threading.Thread(target=self._write_all, name="log lines", daemon=True)
        self._thread.start()

    def put(self, line: str) -> bool:
        """False if it was lost."""
        try:
            self._lines.put_nowait(line)
        except Full:
            return False
        return True

    def close(self) -> None:
        """Writes what is waiting, for at most two seconds."""
        with suppress(Full):
            self._lines.put(None, timeout=_CLOSE_TIMEOUT_S)
            self._thread.join(_CLOSE_TIMEOUT_S)

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            # A closed pipe loses its lines: nobody reads them, and the process has better to do than to end.
            with suppress(OSError, ValueError):
                self._write(line + "\n")

    def _write(self, text: str) -> None:
        if self._descriptor is None:
            self._stream.write(text)
            self._stream.flush()
            return
        # Past the stream's own lock: a thread that holds it at the interpreter's end would abort the process.
        rest = text.encode("utf-8", "backslashreplace")
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


class LogHandler(logging.Handler):
    """Formats lines where they are logged, in the context of whoever does, and leaves them to a writer."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            # Logging's own report of it shows the arguments of the line, and writes to stderr itself.
            line = f"a log line of {record.name} could not be formatted"
        if not self._writer.put(line):
            self._lost += 1
        elif self._lost:
            lost, self._lost = self._lost, 0
            log.warning("log_lines_lost", lines=lost)
            if self._lost:
                # The line took the last room: the next line that finds some tells.
                self._lost = lost


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        # Not a file: a program that calls the command has put something else in its place.
        return None
