"""How far a run is, and a line about it for people."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO


@dataclass(slots=True)
class Progress:
    """Counts of one run, not of those before it.

    Attributes:
        total: samples to ask.
        answered: recorded.
        refused: samples of prompts that the endpoint refuses.
        skipped: samples not asked, because their prompt was refused before.
        unanswered: given up after every try; the next run asks them again.
        running: on their way, or waiting for another try.
        output_tokens: of the answers.
        elapsed_s: since the run began.
        last_failure: why a request failed last.
    """

    total: int
    answered: int = 0
    refused: int = 0
    skipped: int = 0
    unanswered: int = 0
    running: int = 0
    output_tokens: int = 0
    elapsed_s: float = 0.0
    last_failure: str = ""

    @property
    def left(self) -> int:
        return self.total - self.answered - self.refused - self.skipped - self.unanswered

    @property
    def samples_per_s(self) -> float:
        return self.answered / self.elapsed_s if self.elapsed_s > 0 else 0.0


class ProgressLine:
    """Writes progress to a stream: one line that is rewritten on a terminal, else a line now and then.

    Args:
        stream: where to, usually stderr.
        retries: (how often was asked again, why the last time).
        every_s: how often, where lines stay.
    """

    def __init__(self, stream: TextIO, retries: Callable[[], tuple[int, str]], every_s: float = 15.0) -> None:
        self._stream = stream
        self._retries = retries
        self._rewrites = stream.isatty()
        self._every_s = every_s
        self._next_s = 0.0

    def __call__(self, progress: Progress) -> None:
        if not self._rewrites and progress.elapsed_s < self._next_s:
            return
        self._next_s = progress.elapsed_s + self._every_s
        text = describe(progress, *self._retries())
        self._stream.write(f"\r\x1b[K{text}" if self._rewrites else f"{text}\n")
        self._stream.flush()

    def end(self) -> None:
        """Leaves the line to whatever is printed next."""
        if self._rewrites:
            self._stream.write("\n")
            self._stream.flush()


def describe(progress: Progress, retried: int, reason: str) -> str:
    """One line for people."""
    rate = progress.samples_per_s
    tokens_per_s = progress.output_tokens / max(progress.elapsed_s, 1e-9)
    parts = [
        f"{progress.answered:,} of {progress.total:,} samples",
        f"{rate:.1f}/s",
        f"{progress.output_tokens:,} tokens ({tokens_per_s:,.0f}/s)",
        f"{duration(progress.left / rate)} left" if rate else "no answer yet",
    ]
    if failed := progress.refused + progress.skipped + progress.unanswered:
        parts.append(f"{failed:,} failed")
    if retried:
        parts.append(f"{retried:,} retries, the last after: {reason:.80}")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """A duration to two units: "3 h 05 min"."""
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes:02} min"
    return f"{minutes} min {rest_s:02} s" if minutes else f"{rest_s} s"
