"""A request as the scheduler sees it."""

import math
from dataclasses import dataclass
from enum import Enum, auto


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
        deadline_s: when it expires, on the scheduler's clock.
        score: the ranker's; higher = served sooner. Until there is one, behind every request that has one.
        expected_tokens: predicted output length (calibrated median); likewise.
        replay_output_tokens: length of the recorded answer. For oracle policies and the engine only.
        output_tokens: tokens produced so far; recomputed as part of the prefix after a preemption.
        waiting_since_s: start of the present wait: arrival, or the last preemption.
        waiting_since_step: the scheduler's step counter at that time.
        quantum_left: steps for which a promoted request keeps its protection.
        due_s: when starvation prevention promoted it; None while it waits by its key.
    """

    id: str
    arrival_s: float
    prompt_tokens: int
    max_tokens: int
    priority: int = 0
    deadline_s: float | None = None
    score: float = -math.inf
    expected_tokens: float = math.inf
    replay_output_tokens: int | None = None

    phase: Phase = Phase.NEW
    sequence: int = 0
    output_tokens: int = 0
    preemptions: int = 0
    promotions: int = 0
    waiting_since_s: float = 0.0
    waiting_since_step: int = 0
    quantum_left: int = 0
    due_s: float | None = None

    @property
    def prefix_tokens(self) -> int:
        """Tokens to prefill before the next one can be produced."""
        return self.prompt_tokens + self.output_tokens
