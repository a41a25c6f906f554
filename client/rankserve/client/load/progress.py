"""Shows how far a run is, for people."""

from typing import TextIO

from rankserve.client.load.options import Progress


class ProgressLine:
    """Writes progress to a stream: one line that is rewritten on a terminal, else a line now and then.

    Args:
        stream: where to, usually stderr.
        every_s: how often, where lines stay.
    """

    def __init__(self, stream: TextIO, every_s: float = 5.0) -> None:
        self._stream = stream
        self._rewrites = stream.isatty()
        self._every_s = every_s
        self._next_s = 0.0

    def __call__(self, progress: Progress) -> None:
        last = progress.finished + progress.failed == progress.total
        if not self._rewrites and progress.elapsed_s < self._next_s and not last:
            return
        self._next_s = progress.elapsed_s + self._every_s
        failed = f", {progress.failed} failed" if progress.failed else ""
        text = (
            f"{progress.elapsed_s:7.1f} s  sent {progress.sent}/{progress.total}, "
            f"finished {progress.finished}{failed}, waiting {progress.waiting}"
        )
        end = "\n" if last or not self._rewrites else ""
        start = "\r\x1b[K" if self._rewrites else ""
        self._stream.write(start + text + end)
        self._stream.flush()
