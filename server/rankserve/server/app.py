"""Wiring and lifecycle of the server process."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from rankserve.server.access.wiring import Access, bracketed
from rankserve.server.dispatcher import Dispatcher
from rankserve.server.engines.contract import Engine, EngineSettings, make_engine
from rankserve.server.front_door import front_door
from rankserve.server.http_server import HttpServer
from rankserve.server.interpreter import tune_interpreter
from rankserve.server.journal.journal import SqliteJournal
from rankserve.server.journal.store import JournalStore
from rankserve.server.lifecycle import Lifecycle, State
from rankserve.server.observer import Observer
from rankserve.server.ranker_swap import RankerSwap, check_policy_fits
from rankserve.server.ranking.ranker import LoadedVersion, Ranker, RankerSettings
from rankserve.server.ranking.repository import ModelRepository, bundled_repository
from rankserve.server.recovery import recover
from rankserve.server.request_log import RequestLog
from rankserve.server.rpc.admin_service import AdminService
from rankserve.server.rpc.ranker_service import RankerService
from rankserve.server.rpc.scheduler_service import SchedulerService
from rankserve.server.rpc.stats import StatsSource
from rankserve.server.rpc.validation import from_body
from rankserve.server.scheduling.fair_share import FairShare
from rankserve.server.scheduling.policies import AgedRanking, Policy, make_policy
from rankserve.server.scheduling.preemption import Preemption
from rankserve.server.scheduling.scheduler import Scheduler, SchedulerSettings
from rankserve.server.scheduling.starvation import StarvationSettings
from rankserve.server.settings import ServerSettings
from rankserve.v1 import admin_pb2, ranker_pb2, scheduler_pb2
from rankserve.v1.admin_pb2_grpc import add_AdminServiceServicer_to_server
from rankserve.v1.ranker_pb2_grpc import add_RankerServiceServicer_to_server
from rankserve.v1.scheduler_pb2_grpc import add_SchedulerServiceServicer_to_server

log = structlog.get_logger(__name__)

# As `--ranker`: serve without one.
NO_RANKER = "none"

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

SERVICES = (
    "",
    admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
    scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"].full_name,
    ranker_pb2.DESCRIPTOR.services_by_name["RankerService"].full_name,
)


class SettingsError(ValueError):
    """Settings that contradict each other or this machine."""


@dataclass(slots=True, frozen=True)
class Listening:
    """What a started server tells whoever started it."""

    address: str
    policy: str
    engine: str
    ranker_version: str
    http_address: str = ""


async def serve(settings: ServerSettings, on_listening: Callable[[Listening], None]) -> None:
    """Serves until SIGTERM or SIGINT, then drains.

    Raises:
        SettingsError, RankerVersionError, JournalError, ValueError: it cannot start like this, as it says.
        OSError: the address cannot be bound.
    """
    access = Access(settings)
    engine = make_engine(settings.engine, _engine_settings(settings))
    scheduler = Scheduler(make_policy_of(settings, settings.policy), _scheduler_settings(settings, engine))
    ranker = Ranker(_repository(settings), _ranker_settings(settings))
    loaded = await _load_ranker(settings, ranker)
    check_policy_fits(scheduler.policy, scheduler.settings, loaded)
    store = None if settings.journal is None else await asyncio.to_thread(JournalStore, settings.journal)
    journal = None if store is None else SqliteJournal(store, lambda: lifecycle.changed())
    observers: list[Observer] = []
    if settings.request_log:
        observers.append(RequestLog())
    dispatcher = Dispatcher(
        scheduler,
        engine,
        ranker,
        settings,
        journal=journal,
        observers=observers,
        tenant_limits=None if access.tokens is None else access.tokens.tenant_limits,
    )

    server = access.make_server()
    health = health_aio.HealthServicer()
    health_tasks: set[asyncio.Task[None]] = set()

    def on_state(state: State) -> None:
        serving = state in (State.SERVING, State.PAUSED)
        task = asyncio.create_task(_set_health(health, _SERVING if serving else _NOT_SERVING))
        health_tasks.add(task)
        task.add_done_callback(health_tasks.discard)

    lifecycle = Lifecycle(dispatcher, on_state)
    stats = StatsSource(dispatcher, lifecycle, list)
    scheduler_service = SchedulerService(dispatcher, settings, stats)
    add_SchedulerServiceServicer_to_server(scheduler_service, server)
    swap = RankerSwap(dispatcher)
    add_RankerServiceServicer_to_server(
        RankerService(ranker, swap, max_prompt_bytes=settings.max_prompt_bytes), server
    )
    add_AdminServiceServicer_to_server(
        AdminService(dispatcher, lifecycle, partial(make_policy_of, settings)), server
    )
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    names = [name for name in SERVICES if name] + [health_pb2.DESCRIPTOR.services_by_name["Health"].full_name]
    if settings.reflection != "off":
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
    port = access.add_port(server)
    http = _http_server(settings, access, dispatcher, lifecycle, stats)
    if store is not None and journal is not None:
        journal.start()
        recover(await asyncio.to_thread(list, store.entries()), dispatcher, from_body)
    tune_interpreter()
    await server.start()
    await _set_health(health, _SERVING)

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if access.reloads:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, access.reload)
    watch_task = asyncio.create_task(access.watch())
    engine_task = asyncio.create_task(dispatcher.run_engine())
    if http is not None:
        http.start()
    on_listening(
        Listening(
            address=f"{bracketed(settings.host)}:{port}",
            policy=scheduler.policy.name,
            engine=engine.name,
            ranker_version=loaded.reference if loaded else "",
            http_address=f"{bracketed(settings.http_host or settings.host)}:{http.port}" if http else "",
        )
    )
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({stopped, engine_task}, return_when=asyncio.FIRST_COMPLETED)

    log.info("draining", live=len(dispatcher.live_requests()), timeout_s=settings.drain_timeout_s)
    lifecycle.stopping = True
    lifecycle.changed()
    await _set_health(health, _NOT_SERVING)
    if not engine_task.done():
        await asyncio.sleep(settings.drain_notice_s)
        await dispatcher.drain(settings.drain_timeout_s)
    # Streams end by themselves once their last request has; the grace is for their last messages.
    scheduler_service.end_streams()
    if http is not None:
        await http.aclose()
    await server.stop(grace=5 if scheduler_service.open_streams else 0.2)
    await ranker.aclose()
    watch_task.cancel()
    engine_task.cancel()
    await asyncio.wait({engine_task, watch_task})
    if journal is not None:
        await journal.aclose()
    if not engine_task.cancelled() and (failure := engine_task.exception()) is not None:
        raise failure
    scheduler.check_integrity()
    log.info("stopped", accepted=dispatcher.counters.accepted, finished=dispatcher.counters.finished)


def _http_server(
    settings: ServerSettings, access: Access, dispatcher: Dispatcher, lifecycle: Lifecycle, stats: StatsSource
) -> HttpServer | None:
    if settings.http_port is None:
        return None

    def on_slow_client() -> None:
        stats.slow_clients += 1

    find = None if access.tokens is None else access.tokens.find
    server = HttpServer(
        front_door(dispatcher, lifecycle, stats, access.streams, settings, find),
        settings.http_host or settings.host,
        settings.http_port,
        certificate_file=settings.tls_certificate,
        key_file=settings.tls_key,
        client_ca_file=settings.tls_client_ca,
        slow_client_s=settings.slow_client_s,
        on_slow_client=on_slow_client,
    )
    if access.certificates is not None and server.tls is not None:
        access.certificates.follow(server.tls)
    return server


async def _load_ranker(settings: ServerSettings, ranker: Ranker) -> LoadedVersion | None:
    if settings.ranker == NO_RANKER:
        return None
    loaded = await ranker.load(settings.ranker, settings.ranker_version, allow_other_scores=True)
    await ranker.activate(loaded, move_pointer=False)
    return loaded


def make_policy_of(settings: ServerSettings, name: str) -> Policy:
    """A policy by name, with the settings there are for it. Raises UnknownPolicyError."""
    if name == "aged_ranking":
        return AgedRanking(settings.ageing_tokens_per_s)
    return make_policy(name)


def _scheduler_settings(settings: ServerSettings, engine: Engine) -> SchedulerSettings:
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


def _engine_settings(settings: ServerSettings) -> EngineSettings:
    return EngineSettings(
        profile=settings.profile,
        max_sequences=settings.max_sequences,
        max_batched_tokens=settings.max_batched_tokens,
        kv_blocks=settings.kv_blocks,
        swaps=settings.preemption == "swap",
        time_scale=settings.time_scale,
        seed=settings.seed,
    )


def _repository(settings: ServerSettings) -> ModelRepository:
    path: Path = settings.repository or bundled_repository()
    return ModelRepository(path)


def _ranker_settings(settings: ServerSettings) -> RankerSettings:
    cpu = "CPUExecutionProvider"
    providers = tuple(dict.fromkeys((settings.ranker_provider, cpu)))
    return RankerSettings(
        providers=providers,
        threads=settings.ranker_threads,
        timeout_ms=settings.ranker_timeout_ms,
        require_provider=settings.ranker_provider != cpu,
    )


async def _set_health(health: health_aio.HealthServicer, status: int) -> None:
    for service in SERVICES:
        await health.set(service, status)
