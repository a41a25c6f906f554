"""Wiring and lifecycle of the server process."""

import asyncio
import hmac
import ipaddress
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from rankserve.server.access.principal import Principal, Role
from rankserve.server.dispatcher import Dispatcher
from rankserve.server.engines.contract import Engine, EngineSettings, make_engine
from rankserve.server.interpreter import tune_interpreter
from rankserve.server.journal.journal import SqliteJournal
from rankserve.server.journal.store import JournalStore
from rankserve.server.lifecycle import Lifecycle, State
from rankserve.server.metrics.live_tau import LiveTau
from rankserve.server.operations.guard import Find, Guard
from rankserve.server.operations.operations import Operations
from rankserve.server.ranker_swap import RankerSwap, check_policy_fits
from rankserve.server.ranking.ranker import LoadedVersion, Ranker, RankerSettings
from rankserve.server.ranking.repository import ModelRepository, bundled_repository
from rankserve.server.recovery import recover
from rankserve.server.rpc.admin_service import AdminService
from rankserve.server.rpc.interceptors import MalformedMessageInterceptor, TokenInterceptor, read_token
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

if TYPE_CHECKING:
    from rankserve.server.tracing import RequestTraces

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
    operations: str = ""


async def serve(settings: ServerSettings, on_listening: Callable[[Listening], None]) -> None:
    """Serves until SIGTERM or SIGINT, then drains.

    Raises:
        SettingsError, RankerVersionError, JournalError, ValueError: it cannot start like this, as it says.
        OSError: the address cannot be bound.
    """
    interceptors = _interceptors(settings)
    engine = make_engine(settings.engine, _engine_settings(settings))
    scheduler = Scheduler(make_policy_of(settings, settings.policy), _scheduler_settings(settings, engine))
    ranker = Ranker(_repository(settings), _ranker_settings(settings))
    loaded = await _load_ranker(settings, ranker)
    check_policy_fits(scheduler.policy, scheduler.settings, loaded)
    store = None if settings.journal is None else await asyncio.to_thread(JournalStore, settings.journal)
    journal = None if store is None else SqliteJournal(store, lambda: lifecycle.changed())
    operations = Operations(engine.capacity.max_model_len)
    tau = LiveTau(settings.tau_window)
    traces = _traces(settings, engine.name, interceptors)
    watched = operations.observers if settings.operations_port is not None else ()
    observers = [tau, *watched, *traces]
    dispatcher = Dispatcher(scheduler, engine, ranker, settings, journal=journal, observers=observers)

    server = grpc.aio.server(interceptors=interceptors, options=_grpc_options(settings))
    health = health_aio.HealthServicer()
    health_tasks: set[asyncio.Task[None]] = set()

    def on_state(state: State) -> None:
        serving = state in (State.SERVING, State.PAUSED)
        task = asyncio.create_task(_set_health(health, _SERVING if serving else _NOT_SERVING))
        health_tasks.add(task)
        task.add_done_callback(health_tasks.discard)

    lifecycle = Lifecycle(dispatcher, on_state)
    stats = StatsSource(dispatcher, lifecycle, tau.values)
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
    reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
    try:
        port = server.add_insecure_port(f"{_bracketed(settings.host)}:{settings.port}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {settings.host}:{settings.port}: is the port in use?") from error
    operations_address = ""
    if settings.operations_port is not None:
        guard = Guard(_find(settings), loopback=_is_loopback(settings.operations_host))
        operations_port = operations.listen(
            settings.operations_host,
            settings.operations_port,
            guard,
            stats,
            scheduler,
            ranker,
            metrics_open=settings.metrics_open,
        )
        operations_address = f"{_bracketed(settings.operations_host)}:{operations_port}"
    if store is not None and journal is not None:
        journal.start()
        recover(await asyncio.to_thread(list, store.entries()), dispatcher, from_body)
    tune_interpreter()
    await server.start()
    operations.start()
    await _set_health(health, _SERVING)

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    engine_task = asyncio.create_task(dispatcher.run_engine())
    on_listening(
        Listening(
            address=f"{_bracketed(settings.host)}:{port}",
            policy=scheduler.policy.name,
            engine=engine.name,
            ranker_version=loaded.reference if loaded else "",
            operations=operations_address,
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
    await server.stop(grace=5 if scheduler_service.open_streams else 0.2)
    await operations.aclose()
    for trace in traces:
        await asyncio.to_thread(trace.close)
    await ranker.aclose()
    engine_task.cancel()
    await asyncio.wait({engine_task})
    if journal is not None:
        await journal.aclose()
    if not engine_task.cancelled() and (failure := engine_task.exception()) is not None:
        raise failure
    scheduler.check_integrity()
    log.info("stopped", accepted=dispatcher.counters.accepted, finished=dispatcher.counters.finished)


async def _load_ranker(settings: ServerSettings, ranker: Ranker) -> LoadedVersion | None:
    if settings.ranker == NO_RANKER:
        return None
    loaded = await ranker.load(settings.ranker, settings.ranker_version, allow_other_scores=True)
    await ranker.activate(loaded, move_pointer=False)
    return loaded


def _interceptors(settings: ServerSettings) -> list[grpc.aio.ServerInterceptor]:
    interceptors: list[grpc.aio.ServerInterceptor] = [MalformedMessageInterceptor()]
    if settings.token_file is not None:
        interceptors.insert(0, TokenInterceptor(read_token(settings.token_file)))
    elif not _is_loopback(settings.host) and not settings.allow_unauthenticated:
        raise SettingsError(
            f"listening on {settings.host} lets anyone on the network in: give --token-file FILE,"
            " or --allow-unauthenticated if that is meant"
        )
    elif (
        settings.operations_port is not None
        and not _is_loopback(settings.operations_host)
        and not settings.allow_unauthenticated
    ):
        raise SettingsError(
            f"operations on {settings.operations_host} show anyone on the network who is served: give"
            " --token-file FILE, or --allow-unauthenticated if that is meant"
        )
    return interceptors


def _find(settings: ServerSettings) -> Find | None:
    """Whom a token stands for; None where there are no tokens."""
    if settings.token_file is None:
        return None
    token = read_token(settings.token_file).encode()

    def find(given: str) -> Principal | None:
        return Principal("token", frozenset(Role)) if hmac.compare_digest(given.encode(), token) else None

    return find


def _traces(
    settings: ServerSettings, engine: str, interceptors: list[grpc.aio.ServerInterceptor]
) -> "list[RequestTraces]":
    """The traces of requests, where they are asked for; the interceptor that they need is added."""
    if not settings.traces:
        return []
    try:
        from rankserve.server.tracing import RequestTraces, TraceContextInterceptor, exporting_provider
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "rankserve":
            raise
        raise SettingsError(
            f"--traces needs the package {error.name!r}: pip install 'rankserve[telemetry]'"
        ) from None
    interceptors.append(TraceContextInterceptor())
    return [RequestTraces(exporting_provider(), engine)]


def _grpc_options(settings: ServerSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),
        # One message beyond this ends its whole stream, so a prompt that is merely too long must pass.
        ("grpc.max_receive_message_length", max(4 << 20, settings.max_prompt_bytes + (64 << 10))),
        # Clients that vanished without a word are noticed within a minute and a half.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


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
