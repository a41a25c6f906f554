"""A request as the scheduler sees it."""

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankserve.server.scheduling.lane import Entry


class Phase(Enum):
    """Where a request is in its life."""

    NEW = auto()
    WAITING = auto()
    RUNNING = auto()
    ENDED = auto()


@dataclass(slots=True, eq=False)
class Request:
    """One request: what it asks for, what was predicted of it, and how far it has come.

    Attributes:
        id: unique among live requests.
        arrival_s: when it was accepted, on the scheduler's clock.
        prompt_tokens: prompt length as the engine counts it.
        max_tokens: longest answer allowed.
        priority: band; lower is served first.
        tenant: who it is charged to; tenants of a band share it fairly.
        model: whose queue it waits in; empty for the engine's first.
        deadline_s: when it expires, on the scheduler's clock.
        score: the ranker's; higher = served sooner. Until there is one, behind every request that has one.
        expected_tokens: predicted output length (calibrated median); likewise.
        expected_tokens_p90: its 90th percentile; infinite where unknown.
        replay_output_tokens: length of the recorded answer. For oracle policies and the engine only.
        sequence: order of submission.
        output_tokens: tokens produced so far; recomputed as part of the prefix after a preemption.
        kv_tokens: tokens whose KV blocks it holds; kept by the engine, 0 when it holds none.
        decoding: whether its prefix is prefilled, so that each step gives a token; kept by the engine.
        swapped: whether it waits with its KV kept on the host, so that nothing is recomputed; likewise.
        restarts: how often the engine lost it after it had started.
        promotions: starts that being due brought forward.
        ageing: what a bound on waiting adds to its size for having come late; see `fcfs_bound`.
        waiting_since_s: start of the present wait: arrival, or the last preemption.
        waiting_since_step: the scheduler's step counter at that time.
        quantum_left: steps for which a request started while due keeps its protection.
        queue_entry: its entry in the queue; None while it does not wait. The queue's own.
    """

    id: str
    arrival_s: float
    prompt_tokens: int
    max_tokens: int
    priority: int = 0
    tenant: str = ""
    model: str = ""
    deadline_s: float | None = None
    score: float = -math.inf
    expected_tokens: float = math.inf
    expected_tokens_p90: float = math.inf
    replay_output_tokens: int | None = None

    phase: Phase = Phase.NEW
    sequence: int = 0
    output_tokens: int = 0
    kv_tokens: int = 0
    decoding: bool = False
    swapped: bool = False
    preemptions: int = 0
    restarts: int = 0
    promotions: int = 0
    ageing: float = 0.0
    waiting_since_s: float = 0.0
    waiting_since_step: int = 0
    quantum_left: int = 0
    queue_entry: "Entry | None" = None

    @property
    def prefix_tokens(self) -> int:
        """Tokens whose KV must be there before the next one can be produced."""
        return self.prompt_tokens + self.output_tokens

    @property
    def deadline_or_inf_s(self) -> float:
        return math.inf if self.deadline_s is None else self.deadline_s

    @property
    def true_output_tokens(self) -> int:
        """Length of the answer it will get, `max_tokens` where that is unknown. For oracle policies only."""
        if self.replay_output_tokens is None:
            return self.max_tokens
        return min(self.replay_output_tokens, self.max_tokens)
