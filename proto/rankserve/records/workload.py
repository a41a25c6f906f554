"""Workload records: the requests a load run sends.

One JSON object a line. ``prompt`` is required; ``output_tokens`` (or ``lengths``) makes the request a replay
of a recorded answer; ``arrival_s`` fixes when it is sent, else the arrival process draws it.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rankserve.records.jsonl import RecordError, read_jsonl
from rankserve.records.prompts import parse_prompt, prompt_id


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
        priority: lower is served first.
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

    Of several lengths the last is replayed and the others kept as ``other_lengths``.

    Raises:
        RecordError: a line cannot be used; names the file and the line.
        OSError: the file cannot be opened.
    """
    seen: set[str] = set()
    for number, record in read_jsonl(path):
        if limit is not None and len(seen) >= limit:
            return
        try:
            parsed = _parse(record, model)
        except ValueError as error:
            raise RecordError(path, number, str(error)) from None
        if parsed.id in seen:
            raise RecordError(path, number, f"id {parsed.id!r} stands twice in this file")
        seen.add(parsed.id)
        yield parsed


def _parse(record: dict[str, Any], model: str | None) -> WorkloadRecord:
    lengths: tuple[int, ...] = ()
    if any(key in record for key in ("output_tokens", "lengths", "lengths_by_model")):
        prompt_record = parse_prompt(record, model=model)
        lengths = prompt_record.output_lengths
    prompt = record.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError('"prompt" must be a non-empty string')
    arrival_s = record.get("arrival_s")
    if arrival_s is not None and (not isinstance(arrival_s, int | float) or not 0 <= arrival_s < 1e9):
        raise ValueError(f'"arrival_s" must be a number of seconds from 0, got {arrival_s!r}')
    return WorkloadRecord(
        id=str(record.get("id") or prompt_id(prompt)),
        prompt=prompt,
        arrival_s=None if arrival_s is None else float(arrival_s),
        input_tokens=_integer(record, "input_tokens", minimum=1),
        output_tokens=lengths[-1] if lengths else None,
        other_lengths=tuple(record.get("other_lengths", lengths[:-1])),
        max_tokens=_integer(record, "max_tokens", minimum=1),
        priority=_integer(record, "priority", minimum=-1000) or 0,
        tenant=str(record.get("tenant", "")),
    )


def _integer(record: dict[str, Any], key: str, *, minimum: int) -> int | None:
    value = record.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f'"{key}" must be an integer of at least {minimum}, got {value!r}')
    return value
