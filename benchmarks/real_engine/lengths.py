"""How long the LLM's answers are, and how fast they come."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rankserve.records.prompts import PromptRecord


@dataclass(slots=True, frozen=True)
class LengthFigures:
    """Of answers in tokens, each of a prompt's counted.

    Attributes:
        at_cap: share of the answers that were cut.
    """

    prompts: int
    answers: int
    mean: float
    p50: float
    p90: float
    p99: float
    longest: int
    at_cap: float

    @classmethod
    def of(cls, records: Sequence[PromptRecord]) -> "LengthFigures":
        lengths = np.concatenate([record.output_lengths for record in records])
        p50, p90, p99 = np.quantile(lengths, [0.5, 0.9, 0.99])
        return cls(
            prompts=len(records),
            answers=len(lengths),
            mean=float(lengths.mean()),
            p50=float(p50),
            p90=float(p90),
            p99=float(p99),
            longest=int(lengths.max()),
            at_cap=float(np.concatenate([record.censored for record in records]).mean()),
        )


def tokens_per_s(logs: Iterable[Path], concurrency: int) -> float:
    """Output tokens a second with so many requests always on their way, from the logs of `rankserve collect`.

    Latencies of all answers add up to the time that it took, as often as there were requests at a time.
    """
    tokens, seconds = 0, 0.0
    for log in logs:
        for line in log.read_text().splitlines():
            answer = json.loads(line)
            if "latency_s" in answer:
                tokens += answer["output_tokens"]
                seconds += answer["latency_s"]
    return concurrency * tokens / seconds
