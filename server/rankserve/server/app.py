"""Wiring and lifecycle of the server process."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from rankserve.server.access.wiring import Access, bracketed, http_host, is_loopback
from rankserve.server.composition import (
    SettingsError,
    engine_settings,
    load_ranker,
    make_policy_of,
    model_repository,
    ranker_settings,
    scheduler_settings,
)
from rankserve.server.dispatcher import Dispatcher
from rankserve.server.engines.contract import make_engine
from rankserve.server.front_door import front_door
from rankserve.server.http_ports import HttpPorts
from rankserve.server.interpreter import (
    collect_cycles,
    keep_memory_together,
    make_room_for_lookups,
    tune_interpreter,
)
from rankserve.server.journal.journal import SqliteJournal
from rankserve.server.journal.store import JournalStore
from rankserve.server.lifecycle import Lifecycle, State
from rankserve.server.metrics.live_tau import LiveTau
from rankserve.server.observer import Observer
from rankserve.server.operations.guard import Guard
from rankserve.server.operations.operations import Operations
from rankserve.server.ranker_swap import RankerSwap, check_policy_fits
from rankserve.server.ranking.ranker import Ranker
from rankserve.server.recovery import recover
from rankserve.server.request_log import RequestLog
from rankserve.server.rpc.admin_service import AdminService
from rankserve.server.rpc.health_service import HealthService
from rankserve.server.rpc.ranker_service import RankerService
from rankserve.server.rpc.scheduler_service import SchedulerService
from rankserve.server.rpc.stats import StatsSource
from rankserve.server.rpc.validation import from_body
from rankserve.server.scheduling.by_model import Schedulers
from rankserve.server.settings import ServerSettings
from rankserve.v1 import admin_pb2, ranker_pb2, scheduler_pb2
from rankserve.v1.admin_pb2_grpc import add_AdminServiceServicer_to_server
from rankserve.v1.ranker_pb2_grpc import add_RankerServiceServicer_to_server
from rankserve.v1.scheduler_pb2_grpc import add_SchedulerServiceServicer_to_server

if TYPE_CHECKING:
    from rankserve.server.tracing import Tracing

log = structlog.get_logger(__name__)

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

SERVICES = (
    admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
    scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"].full_name,
    ranker_pb2.DESCRIPTOR.services_by_name["RankerService"].full_name,
)
# In histograms of tokens, for engines that do not say how much they take.
_LONGEST_SHOWN = 1 << 18
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


@dataclass(slots=True, frozen=True)
class Listening:
    """What a started server tells whoever started it. Addresses of ports that are not open are empty."""

    address: str
    policy: str
    engine: str
    ranker_version: str
    http_address: str = ""
    operations_address: str = ""


async def serve(settings: ServerSettings, on_listening: Callable[[Listening], None]) -> None:
    """Serves until SIGTERM or SIGINT, then drains.

    Raises:
        SettingsError, RankerVersionError, JournalError, ValueError: it cannot start like this, as it says.
        OSError: an address cannot be bound.
    """
    keep_memory_together()
    make_room_for_lookups(asyncio.get_running_loop())
    server = _Server(settings)
    await server.load()
    await server.run(on_listening)


class _Server:
    """All parts of a server, from its settings to its end."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._access = Access(settings)
        self._engine = make_engine(settings.engine, engine_settings(settings))
        self._ranker = Ranker(model_repository(settings), ranker_settings(settings))
        self._tau = LiveTau(settings.tau_window)

    async def load(self) -> None:
        """What takes time: the engine, the ranker and the journal."""
        settings = self._settings
        await self._engine.prepare()
        policy = make_policy_of(settings, settings.policy)
        self._scheduler = Schedulers(policy, scheduler_settings(settings, self._engine))
        self._operations = Operations(min(self._engine.capacity.max_model_len, _LONGEST_SHOWN))
        self._tracing = _make_tracing(settings, self._engine.name)
        loaded = await load_ranker(settings, self._ranker)
        check_policy_fits(self._scheduler.policy, self._scheduler.settings, loaded)
        store = None if settings.journal is None else await asyncio.to_thread(JournalStore, settings.journal)
        self._journal = None if store is None else SqliteJournal(store, lambda: self._lifecycle.changed())
        tokens = self._access.tokens
        self._dispatcher = Dispatcher(
            self._scheduler,
            self._engine,
            self._ranker,
            settings,
            journal=self._journal,
            observers=self._observers(),
            tenant_limits=None if tokens is None else tokens.tenant_limits,
        )
        self._health = HealthService()
        self._health_tasks: set[asyncio.Task[None]] = set()
        self._lifecycle = Lifecycle(self._dispatcher, self._on_state)
        self._stats = StatsSource(self._dispatcher, self._lifecycle, self._tau.values)
        if store is not None and self._journal is not None:
            self._journal.start()
            recover(await asyncio.to_thread(list, store.entries()), self._dispatcher, from_body)

    async def run(self, on_listening: Callable[[Listening], None]) -> None:
        settings, dispatcher = self._settings, self._dispatcher
        self._add_services()
        self._http = HttpPorts(settings, self._access, self._stats.slow_client)
        port = self._access.add_port(self._grpc)
        http_address, operations_address = self._open_front_door(), self._open_operations()
        tune_interpreter()
        await self._grpc.start()
        await self._set_health(_SERVING)
        stop = self._until_signal()
        watch_task = asyncio.create_task(self._access.watch())
        engine_task = asyncio.create_task(dispatcher.run_engine())
        collect_task = asyncio.create_task(collect_cycles(lambda: len(dispatcher.registry)))
        self._operations.start()
        self._http.start()
        active = self._ranker.active
        on_listening(
            Listening(
                address=f"{bracketed(settings.host)}:{port}",
                policy=self._scheduler.policy.name,
                engine=self._engine.name,
                ranker_version=active.reference if active else "",
                http_address=http_address,
                operations_address=operations_address,
            )
        )
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({stopped, engine_task}, return_when=asyncio.FIRST_COMPLETED)
        await self._drain(engine_failed=engine_task.done())
        tasks = {watch_task, collect_task, engine_task}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if self._journal is not None:
            await self._journal.aclose()
        if not engine_task.cancelled() and (failure := engine_task.exception()) is not None:
            raise failure
        self._scheduler.check_integrity()
        log.info("stopped", accepted=dispatcher.counters.accepted, finished=dispatcher.counters.finished)

    async def _drain(self, *, engine_failed: bool) -> None:
        settings, dispatcher = self._settings, self._dispatcher
        log.info("draining", live=len(dispatcher.live_requests()), timeout_s=settings.drain_timeout_s)
        self._lifecycle.stopping = True
        self._lifecycle.changed()
        await self._set_health(_NOT_SERVING)
        if not engine_failed:
            await asyncio.sleep(settings.drain_notice_s)
            await dispatcher.drain(settings.drain_timeout_s)
        # Streams end by themselves once their last request has; the grace is for their last messages.
        self._scheduler_service.end_streams()
        await self._grpc.stop(grace=5 if self._scheduler_service.open_streams else 0.2)
        await self._operations.aclose()
        await self._http.aclose()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        await self._ranker.aclose()

    def _observers(self) -> list[Observer]:
        observers: list[Observer] = [self._tau]
        if self._settings.operations_port is not None:
            observers += self._operations.observers
        if self._settings.request_log:
            observers.append(RequestLog())
        if self._tracing is not None:
            observers.append(self._tracing.requests)
        return observers

    def _add_services(self) -> None:
        settings, dispatcher = self._settings, self._dispatcher
        tracing = () if self._tracing is None else (self._tracing.interceptor,)
        self._grpc = self._access.make_server(*tracing)
        self._scheduler_service = SchedulerService(dispatcher, settings, self._stats)
        ranker_service = RankerService(
            self._ranker, RankerSwap(dispatcher), max_prompt_bytes=settings.max_prompt_bytes
        )
        admin_service = AdminService(dispatcher, self._lifecycle, partial(make_policy_of, settings))
        add_SchedulerServiceServicer_to_server(self._scheduler_service, self._grpc)
        add_RankerServiceServicer_to_server(ranker_service, self._grpc)
        add_AdminServiceServicer_to_server(admin_service, self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        if settings.reflection != "off":
            names = (*SERVICES, _HEALTH, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._grpc)

    def _open_front_door(self) -> str:
        settings = self._settings
        if settings.http_port is None:
            return ""
        tokens = self._access.tokens
        find = None if tokens is None else tokens.find
        application = front_door(
            self._dispatcher, self._lifecycle, self._stats, self._access.streams, settings, find
        )
        if self._tracing is not None:
            application.add_middleware(self._tracing.middleware)
        host = http_host(settings)
        return f"{bracketed(host)}:{self._http.open(application, host, settings.http_port)}"

    def _open_operations(self) -> str:
        settings = self._settings
        if settings.operations_port is None:
            return ""
        tokens = self._access.tokens
        loopback = is_loopback(settings.operations_host)
        guard = Guard(None if tokens is None else tokens.find, loopback=loopback)
        application = self._operations.application(
            guard, self._stats, self._scheduler, self._ranker, metrics_open=settings.metrics_open
        )
        # Probes have no client certificates; people and scrapers have tokens.
        port = self._http.open(
            application,
            settings.operations_host,
            settings.operations_port,
            secure=not loopback,
            client_certificates=False,
        )
        return f"{bracketed(settings.operations_host)}:{port}"

    def _until_signal(self) -> asyncio.Event:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if self._access.reloads:
            loop.add_signal_handler(signal.SIGHUP, self._access.reload)
        return stop

    def _on_state(self, state: State) -> None:
        serving = state in (State.SERVING, State.PAUSED)
        task = asyncio.create_task(self._set_health(_SERVING if serving else _NOT_SERVING))
        self._health_tasks.add(task)
        task.add_done_callback(self._health_tasks.discard)

    async def _set_health(self, status: int) -> None:
        for service in ("", *SERVICES):
            await self._health.set(service, status)


def _make_tracing(settings: ServerSettings, engine: str) -> "Tracing | None":
    if not settings.traces:
        return None
    try:
        from rankserve.server.tracing import Tracing
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "rankserve":
            raise
        raise SettingsError(
            f"--traces needs the package {error.name!r}: pip install 'rankserve[telemetry]'"
        ) from None
    return Tracing(engine)
