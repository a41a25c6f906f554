"""What an operator can set. Validated once, at the start."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rankserve.server.scheduling.reservation import KvReservation


class ServerSettings(BaseModel):
    """Settings of `rankserve serve`. Times are wall-clock."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=50051, ge=0, le=65535)
    token_file: Path | None = None
    allow_unauthenticated: bool = False

    policy: str = "bounded_ranking"
    ageing_tokens_per_s: float = Field(default=10.0, ge=0)
    starvation_threshold_steps: int = Field(default=0, ge=0)
    starvation_quantum_steps: int = Field(default=10, ge=1)
    max_wait_ms: int | None = Field(default=None, ge=1)
    fair_share: bool = True
    preemption: Literal["off", "recompute", "swap"] = "off"
    preemption_margin: float = Field(default=1.0, ge=0)
    kv_reservation: KvReservation = KvReservation.NONE

    engine: str = "simulated"
    profile: str = ""
    max_sequences: int | None = Field(default=None, ge=1)
    max_batched_tokens: int | None = Field(default=None, ge=1)
    kv_blocks: int | None = Field(default=None, ge=1)
    time_scale: float = Field(default=1.0, gt=0, le=1000)
    seed: int = 0

    repository: Path | None = None
    ranker: str | None = None
    ranker_version: int | None = Field(default=None, ge=1)
    ranker_threads: int = Field(default=1, ge=1)
    ranker_timeout_ms: float = Field(default=10_000, gt=0)
    ranker_provider: str = "CPUExecutionProvider"

    max_waiting: int = Field(default=10_000, ge=1)
    max_waiting_bytes: int = Field(default=256 << 20, ge=1)
    max_prompt_bytes: int = Field(default=256 << 10, ge=1)
    max_waiting_per_tenant: int | None = Field(default=None, ge=1)
    max_waiting_bytes_per_tenant: int | None = Field(default=None, ge=1)
    shed: bool = False
    refuse_late: bool = False
    slow_client_s: float = Field(default=30, gt=0)
    max_stream_events: int = Field(default=16_384, ge=1)
    default_max_tokens: int = Field(default=1024, ge=1)
    replay: bool = False

    operations_port: int | None = Field(default=None, ge=0, le=65535)
    operations_host: str = "127.0.0.1"
    metrics_open: bool = False
    tau_window: int = Field(default=1000, ge=2, le=100_000)
    traces: bool = False

    journal: Path | None = None
    flush_interval_ms: float = Field(default=5, ge=0)
    retain_results: int = Field(default=5_000, ge=0)
    retain_s: float = Field(default=600, ge=0)
    drain_timeout_s: float = Field(default=30, ge=0)
    drain_notice_s: float = Field(default=0, ge=0)
