"""The prompts that an export is checked and calibrated with."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rankserve.exporter.errors import SourceError
from rankserve.exporter.source import RankerSource
from rankserve.records.jsonl import RecordError, read_jsonl
from rankserve.records.prompts import PromptRecord, known_as, parse_prompt


@dataclass(slots=True, frozen=True)
class ValidationSet:
    """Prompts with one LLM's lengths. Scores of different sets are never ordered against each other."""

    source: str
    records: tuple[PromptRecord, ...]


@dataclass(slots=True, frozen=True)
class Validation:
    """Attributes:
    sets: what to check with.
    trained_on: how many prompts were left out because the run was trained on them.
    """

    sets: tuple[ValidationSet, ...]
    trained_on: int

    @property
    def records(self) -> list[PromptRecord]:
        return [record for each in self.sets for record in each.records]


def read_validation(
    source: RankerSource, data: Path | None, *, lengths_of: str | None, max_prompts: int, seed: int
) -> Validation:
    """Prompts with lengths, grouped by their `source` where they state one.

    Args:
        source: what is exported.
        data: a file of prompts with lengths; None: the run's own validation split.
        lengths_of: whose lengths, where the file has those of several LLMs.
        max_prompts: about as many are drawn from more, of each set in proportion.
        seed: of the draw.

    Raises:
        SourceError: there are no prompts.
        RecordError: a line cannot be used; names the file and the line.
        OSError: a file cannot be opened.
    """
    path = data or source.validation
    if path is None:
        raise SourceError(
            f"{source.model} brings no validation prompts, and nothing is published unchecked: "
            "pass --data FILE with prompts and output lengths of the LLM that you serve"
        )
    known = (
        frozenset(source.trained_on.read_text(encoding="utf-8").split()) if source.trained_on else frozenset()
    )
    by_source: dict[str, list[PromptRecord]] = {}
    left_out = 0
    for number, line in read_jsonl(path):
        try:
            record = parse_prompt(line, model=lengths_of)
        except ValueError as error:
            raise RecordError(path, number, str(error)) from None
        if not known_as(record.prompt).isdisjoint(known):
            left_out += 1
        else:
            by_source.setdefault(str(line.get("source", "")), []).append(record)
    if not by_source:
        raise SourceError(f"{path} holds no prompts that the ranker was not trained on")
    sets = [ValidationSet(name, tuple(records)) for name, records in by_source.items()]
    return Validation(tuple(_sampled(sets, max_prompts, seed)), left_out)


def _sampled(sets: list[ValidationSet], max_prompts: int, seed: int) -> list[ValidationSet]:
    total = sum(len(each.records) for each in sets)
    if total <= max_prompts:
        return sets
    generator = np.random.default_rng(seed)
    sampled = []
    for each in sets:
        count = max(1, max_prompts * len(each.records) // total)
        chosen = sorted(generator.permutation(len(each.records))[:count])
        sampled.append(ValidationSet(each.source, tuple(each.records[index] for index in chosen)))
    return sampled
