"""What the lines of a collection's log say."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rankserve.records.json_values import is_integer, is_number
from rankserve.records.jsonl import RecordError
from rankserve.trainer.collection.answers import Answer
from rankserve.trainer.collection.errors import CollectionError
from rankserve.trainer.collection.prompts import Prompt

LOG_SCHEMA = "rankserve.collection/1"
_BEGINNING = f'{{"schema":"{LOG_SCHEMA}"'.encode()
T = TypeVar("T")


@dataclass(slots=True)
class PromptLog:
    """What is recorded of one prompt: answers by sample, and why it was refused, if it was."""

    digest: str
    answers: dict[int, Answer] = field(default_factory=dict)
    refusal: str = ""


@dataclass(slots=True)
class Recorded:
    """What a log holds, by prompt id.

    Attributes:
        prompts: answered or refused.
        unanswered: (id, sample) of requests that went out and have no answer yet.
    """

    prompts: dict[str, PromptLog] = field(default_factory=dict)
    unanswered: set[tuple[str, int]] = field(default_factory=set)

    @property
    def is_empty(self) -> bool:
        return not self.prompts and not self.unanswered

    def answers(self, prompt: Prompt, samples: int) -> list[Answer]:
        """The recorded ones of the prompt's first samples, in their order."""
        entry = self.prompts.get(prompt.id)
        return [] if entry is None else [entry.answers[i] for i in range(samples) if i in entry.answers]

    def is_answered(self, prompt: Prompt, sample: int) -> bool:
        entry = self.prompts.get(prompt.id)
        return entry is not None and sample in entry.answers

    def refusal(self, prompt: Prompt) -> str:
        """Why the prompt was refused; empty if it was not."""
        entry = self.prompts.get(prompt.id)
        return "" if entry is None else entry.refusal

    def check(self, prompts: Iterable[Prompt], path: Path) -> None:
        """Raises CollectionError if a prompt is not the one that was recorded under its id."""
        for prompt in prompts:
            entry = self.prompts.get(prompt.id)
            if entry is not None and entry.digest != prompt.digest:
                raise CollectionError(
                    f"prompt {prompt.id!r:.60} is another than the one recorded under this id in {path}: "
                    f"give it another id, or use another --output"
                )

    def add_answer(self, prompt_id: str, digest: str, sample: int, answer: Answer) -> None:
        self.prompts.setdefault(prompt_id, PromptLog(digest)).answers.setdefault(sample, answer)
        self.unanswered.discard((prompt_id, sample))

    def add_refusal(self, prompt_id: str, digest: str, reason: str) -> None:
        self.prompts.setdefault(prompt_id, PromptLog(digest)).refusal = reason

    def forget_refusals(self) -> None:
        for entry in self.prompts.values():
            entry.refusal = ""


def read_log(path: Path) -> tuple[dict[str, Any] | None, Recorded, int]:
    """The settings of a log (None if it is empty), what it holds, and how many bytes of it are good.

    Raises:
        CollectionError: it is no log of this schema.
        RecordError: a line before the last cannot be read.
    """
    recorded, settings, good = Recorded(), None, 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                if not line.endswith(b"\n") or not isinstance(record, dict):
                    raise ValueError("not a whole line")
                if settings is None:
                    settings = _settings(path, record)
                else:
                    _take(recorded, record)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                if isinstance(error, CollectionError):
                    raise
                if settings is None and not _BEGINNING.startswith(line[: len(_BEGINNING)].rstrip(b"\0")):
                    raise _no_log(path) from None
                if not lines.read(1):
                    return settings, recorded, good
                raise RecordError(
                    path, number, "damaged: remove the line, and what it says is asked again"
                ) from None
            good += len(line)
    return settings, recorded, good


def _settings(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    settings = record.get("settings")
    if record.get("schema") != LOG_SCHEMA or not isinstance(settings, dict):
        raise _no_log(path)
    return settings


def _no_log(path: Path) -> CollectionError:
    return CollectionError(f"{path} is in the way, no log of schema {LOG_SCHEMA!r}: use another --output")


def _take(recorded: Recorded, record: Mapping[str, Any]) -> None:
    """Raises ValueError, KeyError or TypeError where it is no line of a log."""
    if record.get("retry_failed") is True:
        recorded.forget_refusals()
        return
    prompt_id = _typed(str, record["id"])
    if "failed" in record:
        recorded.add_refusal(prompt_id, _typed(str, record["digest"]), _typed(str, record["failed"]))
        return
    sample = _count(record["sample"], 0)
    if record.get("sent") is True:
        recorded.unanswered.add((prompt_id, sample))
        return
    input_tokens, latency_s = record["input_tokens"], record["latency_s"]
    if not is_number(latency_s):
        raise TypeError("latency_s")
    answer = Answer(
        output_tokens=_count(record["output_tokens"], 1),
        censored=_typed(bool, record["censored"]),
        input_tokens=None if input_tokens is None else _count(input_tokens, 1),
        latency_s=float(latency_s),
    )
    recorded.add_answer(prompt_id, _typed(str, record["digest"]), sample, answer)


def _typed(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise TypeError(kind.__name__)
    return value


def _count(value: object, least: int) -> int:
    if not is_integer(value) or value < least:
        raise ValueError("not a count")
    return value
