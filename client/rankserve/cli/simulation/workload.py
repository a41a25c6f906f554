"""What is simulated: requests as columns, from records, prompts with lengths, or a trace."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankserve.client.evaluation.columns import Integers, Numbers, Texts
from rankserve.records.jsonl import RecordError
from rankserve.records.workload import WorkloadRecord


@dataclass(slots=True, frozen=True, eq=False)
class SimulationWorkload:
    """Requests in the order of their file, each attribute of shape [requests], or empty where it says so.

    Attributes:
        id: unique texts.
        arrival_s: recorded times; None if the file has none.
        input_tokens, output_tokens: prompt and recorded answer lengths.
        max_tokens: longest answers asked for; 0 where none is stated.
        priority: bands; lower is served first.
        tenant: numbers of the tenants.
        prompts: the texts; none in a trace.
        prompt_chars: their lengths in characters; 0 in a trace.
        other_lengths: lengths of other answers to the same prompts; none in a trace.
    """

    id: Texts
    arrival_s: Numbers | None
    input_tokens: Integers
    output_tokens: Integers
    max_tokens: Integers
    priority: Integers
    tenant: Integers
    prompts: Sequence[str]
    prompt_chars: Integers
    other_lengths: Sequence[tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.id)


def from_records(
    records: Iterable[WorkloadRecord], path: Path, count_tokens: Callable[[str], int]
) -> SimulationWorkload:
    """A workload of requests that replay recorded answers.

    Args:
        records: as `read_workload` yields them.
        path: their file, for error messages.
        count_tokens: the length of a prompt whose length is not recorded.

    Raises:
        RecordError: a record states no answer length, or there is no record.
    """
    listed = list(records)
    if not listed:
        raise RecordError(path, 0, "holds no request")
    for record in listed:
        if record.output_tokens is None:
            raise RecordError(
                path,
                0,
                f"record {record.id!r} states no answer length, which a simulation must know: give"
                ' "output_tokens" or "lengths"',
            )
    recorded_s = [record.arrival_s for record in listed]
    timed = [arrival_s for arrival_s in recorded_s if arrival_s is not None]
    tenants = {name: number for number, name in enumerate(dict.fromkeys(r.tenant for r in listed))}

    def integers(values: Iterable[int]) -> Integers:
        return np.fromiter(values, np.int64, len(listed))

    return SimulationWorkload(
        id=np.array([record.id for record in listed], str),
        arrival_s=np.array(timed) if len(timed) == len(listed) else None,
        input_tokens=integers(record.input_tokens or count_tokens(record.prompt) for record in listed),
        output_tokens=integers(record.output_tokens or 1 for record in listed),
        max_tokens=integers(record.max_tokens or 0 for record in listed),
        priority=integers(record.priority for record in listed),
        tenant=integers(tenants[record.tenant] for record in listed),
        prompts=[record.prompt for record in listed],
        prompt_chars=integers(len(record.prompt) for record in listed),
        other_lengths=[record.other_lengths for record in listed],
    )


def from_trace(arrival_s: Numbers, input_tokens: Integers, output_tokens: Integers) -> SimulationWorkload:
    """A workload without prompts; requests are named by their row, from 1."""
    zeros = np.zeros(len(arrival_s), np.int64)
    return SimulationWorkload(
        id=_numbered(len(arrival_s)),
        arrival_s=arrival_s,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        max_tokens=zeros,
        priority=zeros,
        tenant=zeros,
        prompts=(),
        prompt_chars=zeros,
        other_lengths=(),
    )


def repeat_to(workload: SimulationWorkload, count: int) -> SimulationWorkload:
    """The workload again and again until it has `count` requests; recorded times go on where they ended.

    Repeated requests are named by the request they repeat and ".2", ".3" ...
    """
    size = len(workload)
    source = np.arange(count) % size
    rounds = np.arange(count) // size
    again = np.array(["", *(f".{number}" for number in range(2, rounds[-1] + 2))])
    columns: dict[str, Any] = {}
    for field in fields(SimulationWorkload):
        values = getattr(workload, field.name)
        if isinstance(values, np.ndarray):
            columns[field.name] = values[source]
        elif values is not None and len(values):
            columns[field.name] = [values[row] for row in source.tolist()]
    repeated = replace(workload, **columns)
    arrival_s = workload.arrival_s
    if arrival_s is not None:
        span_s = float(np.ptp(arrival_s))
        # The pause between the last request and the first is an average one.
        round_s = span_s * size / (size - 1) if size > 1 else 0.0
        arrival_s = arrival_s[source] + rounds * round_s
    return replace(repeated, id=np.char.add(repeated.id, again[rounds]), arrival_s=arrival_s)


def _numbered(count: int) -> Texts:
    numbers: NDArray[np.str_] = np.arange(1, count + 1).astype(f"U{len(str(count))}")
    return numbers
