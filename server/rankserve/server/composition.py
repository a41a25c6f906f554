"""From settings to the parts they describe."""

from pathlib import Path

from rankserve.server.engines.contract import Engine, EngineSettings
from rankserve.server.ranking.ranker import LoadedVersion, Ranker, RankerSettings
from rankserve.server.ranking.repository import ModelRepository, bundled_repository
from rankserve.server.scheduling.fair_share import FairShare
from rankserve.server.scheduling.policies import AgedRanking, Policy, make_policy
from rankserve.server.scheduling.preemption import Preemption
from rankserve.server.scheduling.scheduler import SchedulerSettings
from rankserve.server.scheduling.starvation import StarvationSettings
from rankserve.server.settings import ServerSettings

# As `--ranker`: serve without one.
NO_RANKER = "none"


class SettingsError(ValueError):
    """Settings that contradict each other or this machine."""


def make_policy_of(settings: ServerSettings, name: str) -> Policy:
    """A policy by name, with the settings there are for it. Raises UnknownPolicyError."""
    if name == "aged_ranking":
        return AgedRanking(settings.ageing_tokens_per_s)
    return make_policy(name)


def scheduler_settings(settings: ServerSettings, engine: Engine) -> SchedulerSettings:
    capacity = engine.capacity
    if settings.starvation_threshold_steps and not capacity.steps:
        raise SettingsError(
            f"engine {engine.name} does not show its steps: use --max-wait-ms instead of a threshold in steps"
        )
    if settings.preemption != "off" and not capacity.preempts:
        raise SettingsError(f"engine {engine.name} cannot preempt requests: leave --preemption off")
    return SchedulerSettings(
        starvation=StarvationSettings(
            threshold_steps=settings.starvation_threshold_steps,
            quantum_steps=settings.starvation_quantum_steps,
            max_wait_s=settings.max_wait_ms / 1000 if settings.max_wait_ms else None,
        ),
        fair_share=FairShare(enabled=settings.fair_share),
        preemption=Preemption(
            enabled=settings.preemption != "off",
            margin=settings.preemption_margin,
            restart_steps_per_token=capacity.restart_steps_per_token,
        ),
        kv_reservation=settings.kv_reservation,
    )


def engine_settings(settings: ServerSettings) -> EngineSettings:
    return EngineSettings(
        profile=settings.profile,
        max_sequences=settings.max_sequences,
        max_batched_tokens=settings.max_batched_tokens,
        kv_blocks=settings.kv_blocks,
        swaps=settings.preemption == "swap",
        time_scale=settings.time_scale,
        seed=settings.seed,
        endpoint_urls=settings.engine_url,
        endpoint_file=settings.engine_file,
        model=settings.engine_model,
        dialect=settings.engine_dialect,
        engine_priority=settings.engine_priority,
        api_key_file=settings.engine_api_key_file,
        endpoint_timeout_s=settings.engine_timeout_s,
    )


def model_repository(settings: ServerSettings) -> ModelRepository:
    path: Path = settings.repository or bundled_repository()
    return ModelRepository(path)


def ranker_settings(settings: ServerSettings) -> RankerSettings:
    cpu = "CPUExecutionProvider"
    providers = tuple(dict.fromkeys((settings.ranker_provider, cpu)))
    return RankerSettings(
        providers=providers,
        threads=settings.ranker_threads,
        timeout_ms=settings.ranker_timeout_ms,
        require_provider=settings.ranker_provider != cpu,
    )


async def load_ranker(settings: ServerSettings, ranker: Ranker) -> LoadedVersion | None:
    if settings.ranker == NO_RANKER:
        return None
    loaded = await ranker.load(settings.ranker, settings.ranker_version, allow_other_scores=True)
    await ranker.activate(loaded, move_pointer=False)
    return loaded
