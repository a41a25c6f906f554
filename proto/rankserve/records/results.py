"""Result records: what a run measured, one file a run.

In JSONL the first line describes the run (:class:`RunHeader`), each further line is one request
(:class:`ResultRecord`); `records.result_columns` holds the same as Parquet. The same for simulated, live and
real-engine runs, so every report reads every run.
All times are wall-clock seconds; multiply by ``time_scale`` for the simulated LLM's own seconds.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rankserve.records.json_values import from_json, is_finite
from rankserve.records.jsonl import RecordError, read_jsonl, write_jsonl

SCHEMA = "rankserve.results/1"
PARQUET_SUFFIX = ".parquet"


@dataclass(slots=True, frozen=True)
class RunHeader:
    """How a run was made.

    Attributes:
        policy: the scheduling policy.
        engine: engine and profile, as the server names them.
        ranker_version: "name/number", empty if none.
        workload: where the prompts came from.
        arrivals: the arrival process, as it describes itself.
        seed: of the arrivals.
        time_scale: simulated seconds per wall-clock second.
        max_sequences: batch cap in sequences, of each engine.
        max_batched_tokens: batch cap in tokens for one step, of each engine.
        kv_blocks: KV blocks of each engine.
        replicas: engines that the requests were dealt to in turn, each with a queue of its own.
        settings: of the scheduler, beyond the policy; empty where they are not known.
        engine_usage: what the engines counted: "steps", "busy_s", and "kv_use_mean" and "kv_use_max", KV
            blocks in use as shares of all, over the busy time; empty where they are not known.
        engine_lag: how far the simulated engine fell behind its clock, fraction of its busy time.
        queue_depth: (wall-clock second, requests waiting) samples over the run.
        started_at: RFC 3339.
        versions: of the packages that matter.
        machine: what it ran on.
    """

    policy: str
    engine: str
    ranker_version: str = ""
    workload: str = ""
    arrivals: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    time_scale: float = 1.0
    max_sequences: int = 0
    max_batched_tokens: int = 0
    kv_blocks: int = 0
    replicas: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    engine_usage: dict[str, float] = field(default_factory=dict)
    engine_lag: float = 0.0
    queue_depth: tuple[tuple[float, int], ...] = ()
    started_at: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = ""


@dataclass(slots=True, frozen=True)
class ResultRecord:
    """One request's outcome. Times are wall-clock seconds; `*_s` fields without "server" are the client's.

    Attributes:
        id: the request.
        outcome: "finished", or a gRPC code name in lower case such as "cancelled".
        sent_s: when it was sent, after the start of the run.
        first_token_s: first token received, after the start of the run; None if none came.
        end_s: terminal event received, after the start of the run.
        input_tokens: prompt length as the engine counts it.
        output_tokens: answer length.
        other_lengths: lengths of other answers to the same prompt, from the workload.
        prompt_chars: length of the prompt, for the prompt-length baseline.
        score: the ranker's score; None without one.
        server_queued_s: acceptance until scored, or started if sooner; this and the next four on the
            server's clock.
        server_scheduled_s: acceptance until first scheduled.
        server_first_token_s: acceptance until the first token.
        server_end_s: acceptance until the last token.
        max_token_gap_s: largest gap between two tokens.
        preemptions: times it was evicted.
        promoted: whether starvation prevention moved it.
        priority: its band.
        error: message of a failure.
    """

    id: str
    outcome: str
    sent_s: float
    end_s: float
    first_token_s: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    other_lengths: tuple[int, ...] = ()
    prompt_chars: int = 0
    score: float | None = None
    server_queued_s: float = 0.0
    server_scheduled_s: float = 0.0
    server_first_token_s: float = 0.0
    server_end_s: float = 0.0
    max_token_gap_s: float = 0.0
    preemptions: int = 0
    promoted: bool = False
    priority: int = 0
    error: str = ""


@dataclass(slots=True, frozen=True)
class Run:
    """A run read back: its header and its requests."""

    header: RunHeader
    results: tuple[ResultRecord, ...]


_RESULT_FIELDS = tuple(field.name for field in fields(ResultRecord))


def write_run(path: Path, header: RunHeader, results: Iterable[ResultRecord]) -> None:
    """Writes a run as JSONL (gzip if the name ends in .gz)."""

    def lines() -> Iterable[dict[str, Any]]:
        yield header_to_json(header)
        for result in results:
            # Not `asdict`, which copies every value: a run may have a million results.
            yield {name: getattr(result, name) for name in _RESULT_FIELDS}

    write_jsonl(path, lines())


def read_run(path: Path) -> Run:
    """Reads a run back, from JSONL or from Parquet (``.parquet``).

    Raises:
        RecordError: not a result file of this schema, or a line that cannot be used.
        OSError: the file cannot be opened.
        ModuleNotFoundError: Parquet, and pyarrow is not installed.
    """
    if path.suffix == PARQUET_SUFFIX:
        from rankserve.records.result_columns import read_run_columns, to_records

        header, table = read_run_columns(path)
        return Run(header, tuple(to_records(table)))
    lines = read_jsonl(path)
    number, first = next(lines, (1, {}))
    header = header_from_json(path, number, first)
    results = []
    for number, record in lines:
        try:
            results.append(from_json(ResultRecord, record))
        except ValueError as error:
            raise RecordError(path, number, str(error)) from None
    return Run(header, tuple(results))


def header_to_json(header: RunHeader) -> dict[str, Any]:
    """The header as it stands in files, with the schema of what follows."""
    return {"schema": SCHEMA, **asdict(header)}


def header_from_json(path: Path, line: int, document: dict[str, Any]) -> RunHeader:
    """The header as it stands at this line of a file. Raises RecordError."""
    rest = dict(document)
    if rest.pop("schema", None) != SCHEMA:
        raise RecordError(path, line, f"not a result file: the first line must have schema {SCHEMA!r}")
    try:
        return _header(rest)
    except ValueError as error:
        raise RecordError(path, line, str(error)) from None


def _header(document: dict[str, Any]) -> RunHeader:
    header = from_json(RunHeader, document)
    if header.time_scale <= 0:
        raise ValueError(f'"time_scale" must be above 0, got {header.time_scale}')
    # The figures among what an arrival process says of itself; the rest is its own.
    for name in ("rate", "sender_lateness_p99_s"):
        if name in header.arrivals and not is_finite(header.arrivals[name]):
            raise ValueError(f'"arrivals" must give {name} as a number, got {header.arrivals[name]!r:.40}')
    return header
