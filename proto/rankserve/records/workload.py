"""Workload records: the requests a load run sends.

One JSON object a line. ``prompt`` is required; ``output_tokens`` (or ``lengths``) makes the request a replay
of a recorded answer; ``arrival_s`` fixes when it is sent, else the arrival process draws it.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rankserve.records.json_values import is_integer, is_number
from rankserve.records.jsonl import RecordError, read_jsonl
from rankserve.records.prompts import (
    MOST_TOKENS,
    parse_id,
    parse_prompt,
    parse_text,
    parse_tokens,
    prompt_id,
)

# The bound of the API's field.
MAX_PRIORITY = 1000


@dataclass(slots=True, frozen=True)
class WorkloadRecord:
    """One request to send.

    Attributes:
        id: unique within the workload.
        prompt: the text.
        arrival_s: seconds after the start of the run, or None to let the arrival process choose.
        input_tokens: the prompt's recorded length, for a replay.
        output_tokens: the recorded answer's length, for a replay.
        other_lengths: lengths of other answers to the same prompt; they give the ceiling of any ranker.
        max_tokens: longest answer asked for, or None for the server's default.
        priority: lower is served first; within -1000 and 1000.
        tenant: whom it is sent for.
    """

    id: str
    prompt: str
    arrival_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    other_lengths: tuple[int, ...] = ()
    max_tokens: int | None = None
    priority: int = 0
    tenant: str = ""

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value not in (None, (), "")}


def read_workload(
    path: Path, *, model: str | None = None, limit: int | None = None
) -> Iterator[WorkloadRecord]:
    """Yields the records of a workload file, or of a file of prompts with lengths (records.prompts).

    Of several lengths the last is replayed and the others kept as ``other_lengths``. A record without an id
    is named by the hash of its prompt, and by that with ".2", ".3" ... where the prompt comes again.

    Raises:
        RecordError: a line cannot be used, or states an id that another has; names the file and the line.
        OSError: the file cannot be opened.
    """
    seen: set[str] = set()
    times: Counter[str] = Counter()
    for number, record in read_jsonl(path):
        if limit is not None and len(seen) >= limit:
            return
        try:
            parsed = _parse(record, model)
        except ValueError as error:
            raise RecordError(path, number, str(error)) from None
        if not parsed.id:
            parsed = replace(parsed, id=_generated_id(parsed.prompt, times, seen))
        if parsed.id in seen:
            raise RecordError(path, number, f"id {parsed.id!r} stands twice in this file")
        seen.add(parsed.id)
        yield parsed


def _generated_id(prompt: str, times: Counter[str], seen: set[str]) -> str:
    identifier = prompt_id(prompt)
    while True:
        times[identifier] += 1
        numbered = identifier if times[identifier] == 1 else f"{identifier}.{times[identifier]}"
        if numbered not in seen:
            return numbered


def _parse(record: dict[str, Any], model: str | None) -> WorkloadRecord:
    """The record, its id empty if it states none."""
    lengths: tuple[int, ...] = ()
    if any(key in record for key in ("output_tokens", "lengths", "lengths_by_model")):
        lengths = parse_prompt(record, model=model).output_lengths
    arrival_s = record.get("arrival_s")
    if arrival_s is not None and (not is_number(arrival_s) or not 0 <= arrival_s < 1e9):
        raise ValueError(f'"arrival_s" must be a number of seconds from 0, got {arrival_s!r:.40}')
    tenant = record.get("tenant", "")
    if not isinstance(tenant, str):
        raise ValueError(f'"tenant" must be a string, got {tenant!r:.40}')
    return WorkloadRecord(
        id=parse_id(record),
        prompt=parse_text(record),
        arrival_s=None if arrival_s is None else float(arrival_s),
        input_tokens=_integer(record, "input_tokens", 1, MOST_TOKENS),
        output_tokens=lengths[-1] if lengths else None,
        other_lengths=parse_tokens('"other_lengths"', record.get("other_lengths", list(lengths[:-1]))),
        max_tokens=_integer(record, "max_tokens", 1, MOST_TOKENS),
        priority=_integer(record, "priority", -MAX_PRIORITY, MAX_PRIORITY) or 0,
        tenant=tenant,
    )


def _integer(record: dict[str, Any], key: str, minimum: int, maximum: int) -> int | None:
    value = record.get(key)
    if value is None:
        return None
    if not is_integer(value) or not minimum <= value <= maximum:
        raise ValueError(f'"{key}" must be an integer from {minimum} to {maximum}, got {value!r:.40}')
    return value
