"""What can be set about a fake engine."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from rankserve.server.engines.fake.faults import FaultKind, check_probabilities

Scheduling = Literal["fcfs", "priority"]


@dataclass(slots=True, frozen=True, kw_only=True)
class FakeEngineSettings:
    """How a fake engine behaves. The names are vLLM's where it has one.

    Attributes:
        models: names it serves; as in vLLM they are all of one model, and answers carry the first.
        host, port: where to listen; port 0 takes a free one.
        max_num_seqs: most requests that run at a time.
        ttft_s: from a request's start to its first token.
        itl_s: of a step, which gives each running request a token; 0 goes as fast as the machine.
        itl_per_sequence_s: what each running request adds to a step.
        tokens_per_chunk: tokens in a streamed chunk; the first and the last chunk never wait for more.
        kv_tokens: prompt and output tokens of running requests that fit, before one has to yield.
        max_model_len: most tokens of a prompt and its answer.
        scheduling: who starts first. "fcfs" ignores the priority of requests, "priority" takes the lowest.
        api_key: asked for under /v1; None asks for none.
        mean_output_tokens: mean length of answers, lognormal, in words.
        sigma_output_tokens: standard deviation of its logarithm; 0 makes all answers equally long.
        seed: changes all answers and which requests meet faults.
        faults: probability of each kind, from the start.
        max_records: how many of the latest requests are remembered.

    Raises:
        ValueError: one of them is out of bounds; says which.
    """

    models: tuple[str, ...] = ("fake-model",)
    host: str = "127.0.0.1"
    port: int = 0
    max_num_seqs: int = 8
    ttft_s: float = 0.02
    itl_s: float = 0.005
    itl_per_sequence_s: float = 0.0
    tokens_per_chunk: int = 1
    kv_tokens: int = 32768
    max_model_len: int = 4096
    scheduling: Scheduling = "fcfs"
    api_key: str | None = None
    mean_output_tokens: float = 100.0
    sigma_output_tokens: float = 1.0
    seed: int = 0
    faults: Mapping[FaultKind, float] = field(default_factory=dict)
    max_records: int = 1000

    def __post_init__(self) -> None:
        if not self.models or not all(self.models):
            raise ValueError("models must be at least one name, none of them empty")
        for name in ("max_num_seqs", "tokens_per_chunk", "max_model_len", "max_records"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("ttft_s", "itl_s", "itl_per_sequence_s", "sigma_output_tokens"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be 0 or more, got {value}")
        if not (math.isfinite(self.mean_output_tokens) and self.mean_output_tokens >= 1):
            raise ValueError(f"mean_output_tokens must be at least 1, got {self.mean_output_tokens}")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must be 0 to 65535, got {self.port}")
        if self.kv_tokens < self.max_model_len:
            raise ValueError(
                f"kv_tokens ({self.kv_tokens}) must hold one request of max_model_len ({self.max_model_len})"
            )
        parse_scheduling(self.scheduling)
        check_probabilities(self.faults)


def parse_scheduling(text: str) -> Scheduling:
    """Raises ValueError for what is no kind of scheduling."""
    kinds: tuple[Scheduling, ...] = get_args(Scheduling)
    for kind in kinds:
        if kind == text:
            return kind
    raise ValueError(f"scheduling must be {' or '.join(kinds)}, got {text!r}")
