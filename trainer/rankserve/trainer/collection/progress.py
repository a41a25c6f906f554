"""How far a run is, and a line about it for people."""

from dataclasses import dataclass


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


def describe(progress: Progress, retried: int, reason: str) -> str:
    """What there is to say beside the count of samples."""
    tokens_per_s = progress.output_tokens / max(progress.elapsed_s, 1e-9)
    parts = [f"{progress.output_tokens:,} tokens ({tokens_per_s:,.0f}/s)"]
    if failed := progress.refused + progress.skipped + progress.unanswered:
        parts.append(f"{failed:,} failed")
    if retried:
        parts.append(f"{retried:,} retries, the last after: {reason:.80}")
    return ", ".join(parts)
