"""Result records: what a run measured, one file a run.

The first line describes the run (:class:`RunHeader`), each further line is one request
(:class:`ResultRecord`). The same for simulated, live and real-engine runs, so every report reads every run.
All times are wall-clock seconds; multiply by ``time_scale`` for the simulated LLM's own seconds.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rankserve.records.json_values import from_json, is_finite
from rankserve.records.jsonl import RecordError, read_jsonl, write_jsonl

SCHEMA = "rankserve.results/1"


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
        max_sequences: batch cap in sequences.
        max_batched_tokens: batch cap in tokens for one step.
        kv_blocks: KV blocks in total.
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


def write_run(path: Path, header: RunHeader, results: Iterable[ResultRecord]) -> None:
    """Writes a run as JSONL (gzip if the name ends in .gz)."""

    def lines() -> Iterable[dict[str, Any]]:
        yield {"schema": SCHEMA, **asdict(header)}
        for result in results:
            yield asdict(result)

    write_jsonl(path, lines())


def read_run(path: Path) -> Run:
    """Reads a run back.

    Raises:
        RecordError: not a result file of this schema, or a line that cannot be used.
        OSError: the file cannot be opened.
    """
    lines = read_jsonl(path)
    number, first = next(lines, (1, {}))
    if first.pop("schema", None) != SCHEMA:
        raise RecordError(path, number, f"not a result file: the first line must have schema {SCHEMA!r}")
    try:
        header = _header(first)
    except ValueError as error:
        raise RecordError(path, number, str(error)) from None
    results = []
    for number, record in lines:
        try:
            results.append(from_json(ResultRecord, record))
        except ValueError as error:
            raise RecordError(path, number, str(error)) from None
    return Run(header, tuple(results))


def _header(document: dict[str, Any]) -> RunHeader:
    header = from_json(RunHeader, document)
    if header.time_scale <= 0:
        raise ValueError(f'"time_scale" must be above 0, got {header.time_scale}')
    # The figures among what an arrival process says of itself; the rest is its own.
    for name in ("rate", "sender_lateness_p99_s"):
        if name in header.arrivals and not is_finite(header.arrivals[name]):
            raise ValueError(f'"arrivals" must give {name} as a number, got {header.arrivals[name]!r:.40}')
    return header
