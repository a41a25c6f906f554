"""Prompts with the output lengths that a named LLM gave them: what a ranker is trained and judged on.

Accepted lines:

* ``{"prompt": str, "output_tokens": int}``
* ``{"prompt": str, "lengths": [int, ...]}`` - several samples of one prompt
* ``{"prompt": str, "lengths_by_model": {model: int}}`` - pick one with ``model``

Each may carry ``id`` (else a hash of the prompt), ``category``, ``model``, whose lengths the first two forms
hold, and ``censored``: true, or a list with one of true and false for each length, where an answer was cut at
that length and would have gone on. Lengths of different LLMs are not comparable, so a file states one.

An id names one prompt. A prompt may come again under its id, each time with further samples; every such line
is kept as a record of its own, and all of them fall to the same split.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankserve.records.json_values import is_integer
from rankserve.records.jsonl import RecordError, read_jsonl

# What the API's integers hold.
MOST_TOKENS = 2**31 - 1
# No LLM answers at such length: the column holds something else, such as a time.
LONGEST_ANSWER = 10_000_000
SPLITS = ("train", "validation", "test")


@dataclass(slots=True, frozen=True)
class PromptRecord:
    """One prompt and the lengths, in tokens, of one or several answers to it.

    Attributes:
        censored: for each length whether the answer was cut there, so that it is "at least" so long; by
            default none was.
    """

    id: str
    prompt: str
    output_lengths: tuple[int, ...]
    category: str = ""
    censored: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        if not self.censored:
            object.__setattr__(self, "censored", (False,) * len(self.output_lengths))
        elif len(self.censored) != len(self.output_lengths):
            raise ValueError(
                f"{len(self.output_lengths)} lengths and {len(self.censored)} marks of censoring: one each"
            )

    @property
    def mean_length(self) -> float:
        return sum(self.output_lengths) / len(self.output_lengths)


def prompt_id(prompt: str) -> str:
    """A stable id for a prompt that came without one."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def normalised(prompt: str) -> str:
    """What two prompts share that differ only in white space and case."""
    return " ".join(prompt.split()).casefold()


def known_as(prompt: str) -> frozenset[str]:
    """The ids of a prompt in a list of those that a ranker was trained on: as it is, and normalised.

    A prompt is known if the list holds either. Older lists hold only the first.
    """
    return frozenset((prompt_id(prompt), prompt_id(normalised(prompt))))


def read_prompts(
    path: Path, *, model: str | None = None, limit: int | None = None, length_cap: int | None = None
) -> Iterator[PromptRecord]:
    """Yields the prompts of a JSONL(.gz) file, in file order.

    Args:
        path: the file.
        model: which entry of ``lengths_by_model`` to take, needed when there are several; lines of the other
            forms must not state another one.
        limit: stop after this many.
        length_cap: what answers were cut at; each length from here on counts as censored.

    Raises:
        RecordError: a line cannot be used, two prompts have one id, two lines state different models, or
            there is no prompt; names the file and the line.
        OSError: the file cannot be opened.
    """
    # Line and prompt of each; those made from the prompt cannot differ in it.
    stated: dict[str, tuple[int, int]] = {}
    # Line and name of the first.
    stated_model: tuple[int, str] | None = None
    empty = True
    for number, record in itertools.islice(read_jsonl(path), limit):
        try:
            parsed = parse_prompt(record, model=model, length_cap=length_cap)
        except ValueError as error:
            raise RecordError(path, number, str(error)) from None
        if record.get("id") is not None:
            first, prompt = stated.setdefault(parsed.id, (number, hash(parsed.prompt)))
            if prompt != hash(parsed.prompt):
                raise RecordError(
                    path,
                    number,
                    f"id {parsed.id!r:.60} is that of another prompt in line {first}: give each prompt its "
                    'own id, or leave "id" out',
                )
        if name := parse_model(record):
            stated_model = stated_model or (number, name)
            if name != stated_model[1]:
                raise RecordError(
                    path,
                    number,
                    f"the lengths are of {name!r:.60}, and those of line {stated_model[0]} of "
                    f"{stated_model[1]!r:.60}, which are not comparable: give each LLM a file of its own, or "
                    'put all in "lengths_by_model" and set `model`',
                )
        empty = False
        yield parsed
    if empty and limit != 0:
        raise RecordError(
            path, 0, 'holds no prompts: put one {"prompt": ..., "output_tokens": ...} on each line'
        )


def parse_prompt(
    record: dict[str, Any], *, model: str | None = None, length_cap: int | None = None
) -> PromptRecord:
    """One record from its JSON form. Raises ValueError saying what is wrong."""
    prompt = parse_text(record)
    stated = parse_model(record)
    if model is not None and stated not in ("", model):
        raise ValueError(f"the lengths are of {stated!r:.60}, not of the model asked for, {model!r:.60}")
    lengths = parse_tokens("output lengths", _lengths(record, model), most=LONGEST_ANSWER)
    return PromptRecord(
        id=parse_id(record) or prompt_id(prompt),
        prompt=prompt,
        output_lengths=lengths,
        category=str(record.get("category", "")),
        censored=tuple(
            cut or (length_cap is not None and length >= length_cap)
            for cut, length in zip(_censored(record, len(lengths)), lengths, strict=True)
        ),
    )


def parse_text(record: dict[str, Any]) -> str:
    """The prompt itself. Raises ValueError saying what is wrong."""
    prompt = record.get("prompt")
    if "prompt" not in record:
        raise ValueError(f'needs "prompt", and has only {_names(record)}')
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f'"prompt" must be a non-empty string, got {prompt!r:.40}')
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise ValueError('"prompt" must be text: it holds half of a surrogate pair') from None
    return prompt


def parse_id(record: dict[str, Any]) -> str:
    """The id that the record states, empty if none. Raises ValueError saying what is wrong."""
    identifier = record.get("id")
    if identifier is None:
        return ""
    if not isinstance(identifier, str) and not is_integer(identifier):
        raise ValueError(f'"id" must be a string or an integer, got {identifier!r:.40}')
    return str(identifier)


def parse_model(record: dict[str, Any]) -> str:
    """Whose lengths the record states that it holds, empty if it does not, or names the LLM of each length.

    Raises ValueError saying what is wrong.
    """
    model = record.get("model")
    if model is None or not {"output_tokens", "lengths"} & record.keys():
        return ""
    if not isinstance(model, str):
        raise ValueError(f'"model" must be a string, got {model!r:.40}')
    return model


def parse_tokens(what: str, lengths: object, *, most: int = MOST_TOKENS) -> tuple[int, ...]:
    """Lengths in tokens. Raises ValueError naming `what` they are."""
    if not isinstance(lengths, list):
        raise ValueError(f"{what} must be a list, got {lengths!r:.40}")
    for length in lengths:
        if not is_integer(length) or not 1 <= length <= most:
            raise ValueError(f"{what} must be integers from 1 to {most} tokens, got {length!r:.40}")
    return tuple(lengths)


def _lengths(record: dict[str, Any], model: str | None) -> list[Any]:
    if "output_tokens" in record:
        return [record["output_tokens"]]
    if "lengths" in record:
        lengths = record["lengths"]
        if not isinstance(lengths, list) or not lengths:
            raise ValueError('"lengths" must be a non-empty list')
        return lengths
    if "lengths_by_model" in record:
        by_model = record["lengths_by_model"]
        if not isinstance(by_model, dict) or not by_model:
            raise ValueError('"lengths_by_model" must be a non-empty object')
        if model is None and len(by_model) > 1:
            raise ValueError(f"lengths of several models, say which: {', '.join(sorted(by_model))}")
        if model is not None and model not in by_model:
            raise ValueError(f"no lengths of model {model!r}, only of {', '.join(sorted(by_model))}")
        return [by_model[model] if model is not None else next(iter(by_model.values()))]
    raise ValueError(f'needs "output_tokens", "lengths" or "lengths_by_model", and has only {_names(record)}')


def _censored(record: dict[str, Any], samples: int) -> list[bool]:
    censored = record.get("censored", False)
    flags = [censored] * samples if isinstance(censored, bool) else censored
    if not isinstance(flags, list) or not all(isinstance(flag, bool) for flag in flags):
        raise ValueError(f'"censored" must be true or false, or a list of them, got {censored!r:.40}')
    if len(flags) != samples:
        raise ValueError(
            f'"censored" must be as long as the lengths, one of true and false for each of the {samples}, '
            f"got {len(flags)}"
        )
    return flags


def _names(record: dict[str, Any]) -> str:
    return ", ".join(f'"{name:.40}"' for name in itertools.islice(record, 8)) or "no fields"


def split_of(identifier: str, fractions: Sequence[float] = (0.8, 0.1, 0.1)) -> str:
    """The split an id belongs to, by hash: the same in every run and on every machine.

    Args:
        identifier: the record's id.
        fractions: shares of train, validation and test; they add up to 1.
    """
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or abs(sum(fractions) - 1.0) > 1e-6:
        raise ValueError(f"split fractions must be three shares that add up to 1, got {tuple(fractions)}")
    digest = hashlib.blake2b(identifier.encode(), digest_size=8).digest()
    position = int.from_bytes(digest) / 2**64
    if position < fractions[0]:
        return "train"
    if position < fractions[0] + fractions[1]:
        return "validation"
    return "test"
