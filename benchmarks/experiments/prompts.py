"""Held-out prompts with the lengths of real answers and a real ranker's scores. No text is kept."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankserve.records.prompts import PromptRecord

Integers = NDArray[np.int64]
Numbers = NDArray[np.float64]

# As the simulated engine counts.
CHARACTERS_PER_TOKEN = 4


@dataclass(slots=True, frozen=True)
class DataSet:
    """A file of prompts and the LLM whose answers are replayed.

    Attributes:
        name: also of the recipe that trains a ranker on it, and of the ranker.
        title: for tables.
        file: its name in ``lengths/``.
        model: which of several LLMs in the file; None if there is one.
        profile: the engine that serves that LLM.
        longest_answer: the cap on new tokens when the lengths were recorded.
    """

    name: str
    title: str
    file: str
    model: str | None
    profile: str
    longest_answer: int


ALPACA = DataSet(
    "alpaca_vicuna7b", "Alpaca (Vicuna-7B)", "alpaca_vicuna7b.jsonl.gz", None, "a100-llama3-8b", 512
)
MMLU_8B = DataSet(
    "mmlupro_llama31_8b",
    "MMLU-Pro (Llama-3.1-8B)",
    "mmlupro.jsonl.gz",
    "Meta-Llama-3_1-8B-Instruct",
    "a100-llama3-8b",
    2048,
)
MMLU_70B = DataSet(
    "mmlupro_llama31_70b",
    "MMLU-Pro (Llama-3.1-70B)",
    "mmlupro.jsonl.gz",
    "Meta-Llama-3_1-70B-Instruct",
    "a100-llama3-70b-tp4",
    2048,
)
DATA_SETS = (ALPACA, MMLU_8B, MMLU_70B)
# The same in short, where a figure of each is given in this order.
IN_ORDER = "Alpaca / MMLU-Pro 8B / MMLU-Pro 70B"


@dataclass(slots=True, frozen=True)
class Prompts:
    """Prompts as arrays with one entry for each.

    Attributes:
        ids: of the records.
        prompt_tokens: characters / 4, as the simulated engine counts.
        output_tokens: the answer that is replayed.
        other_tokens: [prompts, samples]: other answers to the same prompts; may have no column.
        score: the ranker's; higher = shorter answer expected.
        expected_tokens, expected_tokens_p90: its calibrated median and 90th percentile.
        ranker: "name/version sha256" of what scored them.
        tau: Kendall's tau-b with `output_tokens` of the ranker, its baselines and its ceilings, by name.
    """

    ids: NDArray[np.str_]
    prompt_tokens: Integers
    output_tokens: Integers
    other_tokens: Integers
    score: Numbers
    expected_tokens: Numbers
    expected_tokens_p90: Numbers
    ranker: str
    tau: dict[str, float]

    def __len__(self) -> int:
        return len(self.ids)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        np.savez_compressed(path, **{**values, "tau": json.dumps(self.tau)})

    @classmethod
    def load(cls, path: Path) -> "Prompts":
        with np.load(path) as saved:
            values = {field.name: saved[field.name] for field in fields(cls)}
        return cls(**{**values, "ranker": str(values["ranker"]), "tau": json.loads(str(values["tau"]))})


def token_counts(records: list[PromptRecord]) -> Integers:
    """Prompt lengths in tokens, [records]."""
    return np.array([max(len(record.prompt) // CHARACTERS_PER_TOKEN, 1) for record in records], np.int64)


def replayed_lengths(records: list[PromptRecord]) -> Integers:
    """The last of each prompt's recorded lengths, as `records.workload` takes it, [records]."""
    return np.array([record.output_lengths[-1] for record in records], np.int64)
