"""How long the LLM's answers are."""

from collections.abc import Sequence
from dataclasses import dataclass

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
