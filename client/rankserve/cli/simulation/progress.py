"""How far simulations are, on a terminal."""

import time
from collections.abc import Callable
from threading import Lock
from typing import TextIO

_EVERY_S = 0.1


class ProgressLine:
    """One line that is rewritten; nothing where the stream is no terminal. Safe to use from several threads.

    Args:
        stream: where to, usually stderr.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = stream.isatty()
        self._next_s = 0.0
        self._lock = Lock()

    def show(self, text: str) -> None:
        """Rewrites the line, at most some times a second."""
        with self._lock:
            if self._shown and time.monotonic() >= self._next_s:
                self._next_s = time.monotonic() + _EVERY_S
                self._write(text)

    def clear(self) -> None:
        """Leaves an empty line, for whatever else is printed."""
        with self._lock:
            self._next_s = 0.0
            if self._shown:
                self._write("")

    def counting(self, total: int) -> Callable[[int, int], None]:
        """To be told how many of its requests each simulation has come to; `total` is of all together."""
        arrived: dict[int, int] = {}

        def report(simulation: int, count: int) -> None:
            arrived[simulation] = count
            done = sum(list(arrived.values()))
            self.show(f"simulated {done:,} of {total:,} requests ({done / total:.0%})")

        return report

    def _write(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K{text}")
        self._stream.flush()
