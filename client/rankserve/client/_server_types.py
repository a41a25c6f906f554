"""What a server says of itself: its requests, counters and ranker versions."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rankserve.client._types import RequestState


class ServerState(StrEnum):
    """What a server does with requests."""

    UNSPECIFIED = "unspecified"
    SERVING = "serving"
    PAUSED = "paused"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(slots=True, frozen=True)
class RankerAccuracy:
    """Kendall's tau of a ranker version on its last ``requests`` finished requests; None with too few."""

    ranker_version: str
    kendall_tau: float | None
    requests: int


@dataclass(slots=True, frozen=True)
class EndpointStats:
    """One of the servers that a real engine drives; what it does not say of itself is None.

    Attributes:
        url: its base URL.
        model: the model it answers with; empty until it has said so.
        circuit: ``"closed"`` while it serves, ``"open"`` while it does not, ``"half_open"`` while one request
            finds out.
        in_flight, limit: requests it has from this server, and the most it is given.
        running, waiting: requests in its batch and behind it, from everybody.
        kv_usage: the part of its KV cache that is in use.
    """

    url: str
    model: str
    circuit: str
    in_flight: int
    limit: int
    running: int | None
    waiting: int | None
    kv_usage: float | None


@dataclass(slots=True, frozen=True)
class RequestSummary:
    """A request in a list: who asked, where it is, and its tokens so far. ``accept_time`` is UTC."""

    request_id: str
    state: RequestState
    tenant: str
    priority: int
    accept_time: datetime
    input_tokens: int
    output_tokens: int
    score: float
    ranker_version: str


@dataclass(slots=True, frozen=True)
class Stats:
    """Queue, engine and scheduler counters. Totals count since the server started.

    Attributes:
        policy, ranker_version, engine: what orders, scores and serves.
        time_scale: simulated seconds per wall-clock second.
        uptime_s: wall-clock seconds since the start.
        scoring, waiting, running: requests accepted and not yet scored, waiting, in the batch.
        max_sequences, max_batched_tokens: batch caps of one step.
        kv_blocks_used, kv_blocks_total: KV cache blocks.
        accepted_total ... output_tokens_total: what happened so far.
        neutral_scores_total: requests scored neutrally because the ranker failed or was late.
        engine_lag: how far the simulated engine fell behind its clock, as a fraction of its busy time.
        state, state_detail: what the server does with requests, and why.
        waiting_bytes: of the prompts that wait.
        open_streams: Submit, Generate and Watch calls.
        shed_total: dropped from the queue for others of better priority; part of ``failed_total``.
        slow_clients_total: streams cut because their client did not read.
        journal_live, journal_retained: requests in the journal that have not ended, and that have.
        recovered_total: requests taken over from a journal when the server started.
        ranker_detail: why requests get neutral scores; empty if nothing is wrong.
        ranker_accuracy: how well each ranker version ordered what finished lately.
        endpoints: the servers that a real engine drives.
    """

    policy: str
    ranker_version: str
    engine: str
    time_scale: float
    uptime_s: float
    scoring: int
    waiting: int
    running: int
    max_sequences: int
    max_batched_tokens: int
    kv_blocks_used: int
    kv_blocks_total: int
    accepted_total: int
    finished_total: int
    cancelled_total: int
    expired_total: int
    failed_total: int
    refused_total: int
    preemptions_total: int
    promotions_total: int
    steps_total: int
    output_tokens_total: int
    neutral_scores_total: int
    engine_lag: float
    state: ServerState
    state_detail: str
    waiting_bytes: int
    open_streams: int
    shed_total: int
    slow_clients_total: int
    journal_live: int
    journal_retained: int
    recovered_total: int
    ranker_detail: str
    ranker_accuracy: tuple[RankerAccuracy, ...]
    endpoints: tuple[EndpointStats, ...]


@dataclass(slots=True, frozen=True)
class PromptScore:
    """A prompt's score (higher = shorter answer expected) and, where calibrated, the expected tokens."""

    score: float
    expected_tokens_p50: float | None
    expected_tokens_p90: float | None


@dataclass(slots=True, frozen=True)
class Scores:
    """Scores in the order of the prompts, and the "name/number" of the version that gave them."""

    scores: tuple[PromptScore, ...]
    ranker_version: str


@dataclass(slots=True, frozen=True)
class RankerVersionInfo:
    """A version in the server's model repository.

    Attributes:
        name, version: which one.
        active: whether it scores requests now.
        problem: why it cannot be used; empty if it can. Of the active version also what is wrong with it
            though it is served: scores that differ from those recorded at export.
        kendall_tau: tau-b on its validation split; None if unknown.
        precision: "int8", "fp16" or "fp32".
        created_at: RFC 3339.
        base_model: what it was fine-tuned from.
        providers: ONNX Runtime execution providers that run it, the preferred one first; of the active one.
        missing_providers: those that were asked for and could not be had; of the active one.
        coverage_p50, coverage_p90: shares of answers at or below the expected tokens; None if not measured.
        loaded: whether it is in memory: active, or ready to be activated.
    """

    name: str
    version: int
    active: bool
    problem: str
    kendall_tau: float | None
    precision: str
    created_at: str
    base_model: str
    providers: tuple[str, ...] = ()
    missing_providers: tuple[str, ...] = ()
    coverage_p50: float | None = None
    coverage_p90: float | None = None
    loaded: bool = False


@dataclass(slots=True, frozen=True)
class Activation:
    """A ranker version that was made active, and how many waiting requests it scored again."""

    active: RankerVersionInfo
    rescored: int


@dataclass(slots=True, frozen=True)
class PolicyChange:
    """A change of policy: the one before, and how many waiting requests were put in the new order."""

    previous: str
    reordered: int
