"""What an operator can set: types and bounds. Validated once, at the start."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from rankserve.server.scheduling.reservation import KvReservation
from rankserve.server.settings_table import ENVIRONMENT_PREFIX, SETTINGS

_DAY_S = 86_400.0


def _setting(name: str, **bounds: Any) -> Any:
    setting = SETTINGS[name]
    return Field(default=setting.default, description=setting.description, **bounds)


class ServerSettings(BaseSettings):
    """Settings of `rankserve serve`. Times are wall-clock. `settings_table` has defaults and meaning.

    Made directly, it holds what it is given and defaults; `settings_sources` reads files and the environment.
    None is a secret: those are in files that settings name.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,
    )

    host: str = _setting("host", min_length=1)
    port: int = _setting("port", ge=0, le=65535)
    http_host: str = _setting("http_host")
    http_port: int | None = _setting("http_port", ge=0, le=65535)
    served_model_name: str = _setting("served_model_name", max_length=128)

    token_file: Path | None = _setting("token_file")
    allow_unauthenticated: bool = _setting("allow_unauthenticated")
    metrics_open: bool = _setting("metrics_open")
    tls_certificate: Path | None = _setting("tls_certificate")
    tls_key: Path | None = _setting("tls_key")
    tls_client_ca: Path | None = _setting("tls_client_ca")
    reflection: Literal["admin", "all", "off"] = _setting("reflection")

    policy: str = _setting("policy")
    ageing_tokens_per_s: float = _setting("ageing_tokens_per_s", ge=0)
    max_wait_ms: int | None = _setting("max_wait_ms", ge=1)
    starvation_threshold_steps: int = _setting("starvation_threshold_steps", ge=0)
    starvation_quantum_steps: int = _setting("starvation_quantum_steps", ge=1)
    fair_share: bool = _setting("fair_share")
    preemption: Literal["off", "recompute", "swap"] = _setting("preemption")
    preemption_margin: float = _setting("preemption_margin", ge=0)
    gather_ms: float = _setting("gather_ms", ge=0, le=10_000)
    kv_reservation: KvReservation = _setting("kv_reservation")

    repository: Path | None = _setting("repository")
    ranker: str | None = _setting("ranker", min_length=1)
    ranker_version: int | None = _setting("ranker_version", ge=1)
    ranker_threads: int = _setting("ranker_threads", ge=1, le=1024)
    ranker_timeout_ms: float = _setting("ranker_timeout_ms", gt=0, le=_DAY_S * 1000)
    ranker_provider: str = _setting("ranker_provider", min_length=1)

    engine: str = _setting("engine")
    profile: str = _setting("profile")
    engine_url: str = _setting("engine_url", max_length=65_536)
    engine_file: Path | None = _setting("engine_file")
    engine_model: str = _setting("engine_model", max_length=256)
    engine_dialect: Literal["", "vllm", "sglang", "llama.cpp", "openai"] = _setting("engine_dialect")
    engine_priority: Literal["off", "lower-first", "higher-first"] = _setting("engine_priority")
    engine_api_key_file: Path | None = _setting("engine_api_key_file")
    engine_timeout_s: float = _setting("engine_timeout_s", gt=0, le=_DAY_S)
    max_sequences: int | None = _setting("max_sequences", ge=1)
    max_batched_tokens: int | None = _setting("max_batched_tokens", ge=1)
    kv_blocks: int | None = _setting("kv_blocks", ge=1)
    time_scale: float = _setting("time_scale", gt=0, le=1000)
    seed: int = _setting("seed")
    replay: bool = _setting("replay")

    max_waiting: int = _setting("max_waiting", ge=1)
    max_waiting_bytes: int = _setting("max_waiting_bytes", ge=1)
    max_waiting_per_tenant: int | None = _setting("max_waiting_per_tenant", ge=1)
    max_waiting_bytes_per_tenant: int | None = _setting("max_waiting_bytes_per_tenant", ge=1)
    max_prompt_bytes: int = _setting("max_prompt_bytes", ge=1, le=1 << 30)
    default_max_tokens: int = _setting("default_max_tokens", ge=1)
    refuse_late: bool = _setting("refuse_late")
    shed: bool = _setting("shed")
    max_stream_events: int = _setting("max_stream_events", ge=1)
    max_open_streams: int = _setting("max_open_streams", ge=1)
    max_open_streams_per_caller: int = _setting("max_open_streams_per_caller", ge=1)
    max_metadata_bytes: int = _setting("max_metadata_bytes", ge=1 << 10, le=1 << 20)
    slow_client_s: float = _setting("slow_client_s", gt=0, le=_DAY_S)
    flush_interval_ms: float = _setting("flush_interval_ms", ge=0, le=60_000)

    journal: Path | None = _setting("journal")
    retain_results: int = _setting("retain_results", ge=0)
    retain_s: float = _setting("retain_s", ge=0)
    drain_timeout_s: float = _setting("drain_timeout_s", ge=0, le=_DAY_S)
    drain_notice_s: float = _setting("drain_notice_s", ge=0, le=_DAY_S)

    operations_port: int | None = _setting("operations_port", ge=0, le=65535)
    operations_host: str = _setting("operations_host", min_length=1)
    tau_window: int = _setting("tau_window", ge=2, le=100_000)
    traces: bool = _setting("traces")
    log_level: Literal["debug", "info", "warning", "error"] = _setting("log_level")
    log_format: Literal["auto", "json", "console"] = _setting("log_format")
    request_log: bool = _setting("request_log")

    @field_validator("*", mode="before")
    @classmethod
    def _takes_no_boolean_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        default = SETTINGS[str(info.field_name)].default
        if isinstance(value, bool) and not isinstance(default, bool):
            raise PydanticCustomError("unexpected_boolean", "should not be true or false")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    def changed(self) -> dict[str, object]:
        """What differs from the defaults, as plain values."""
        return {
            name: value
            for name, value in self.model_dump(mode="json").items()
            if value != SETTINGS[name].default
        }
