"""Wiring and lifecycle of the server process."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from rankserve.server.access.wiring import Access, bracketed, http_host
from rankserve.server.composition import (
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
from rankserve.server.interpreter import tune_interpreter
from rankserve.server.journal.journal import SqliteJournal
from rankserve.server.journal.store import JournalStore
from rankserve.server.lifecycle import Lifecycle, State
from rankserve.server.observer import Observer
from rankserve.server.ranker_swap import RankerSwap, check_policy_fits
from rankserve.server.ranking.ranker import Ranker
from rankserve.server.recovery import recover
from rankserve.server.request_log import RequestLog
from rankserve.server.rpc.admin_service import AdminService
from rankserve.server.rpc.ranker_service import RankerService
from rankserve.server.rpc.scheduler_service import SchedulerService
from rankserve.server.rpc.stats import StatsSource
from rankserve.server.rpc.validation import from_body
from rankserve.server.scheduling.scheduler import Scheduler
from rankserve.server.settings import ServerSettings
from rankserve.v1 import admin_pb2, ranker_pb2, scheduler_pb2
from rankserve.v1.admin_pb2_grpc import add_AdminServiceServicer_to_server
from rankserve.v1.ranker_pb2_grpc import add_RankerServiceServicer_to_server
from rankserve.v1.scheduler_pb2_grpc import add_SchedulerServiceServicer_to_server

log = structlog.get_logger(__name__)

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

SERVICES = (
    "",
    admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
    scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"].full_name,
    ranker_pb2.DESCRIPTOR.services_by_name["RankerService"].full_name,
)


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
    engine = make_engine(settings.engine, engine_settings(settings))
    scheduler = Scheduler(make_policy_of(settings, settings.policy), scheduler_settings(settings, engine))
    ranker = Ranker(model_repository(settings), ranker_settings(settings))
    loaded = await load_ranker(settings, ranker)
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
    http = HttpPorts(settings, access, stats.slow_client)
    http_address = ""
    if settings.http_port is not None:
        find = None if access.tokens is None else access.tokens.find
        application = front_door(dispatcher, lifecycle, stats, settings, find)
        http_port = http.open(application, http_host(settings), settings.http_port)
        http_address = f"{bracketed(http_host(settings))}:{http_port}"
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
    http.start()
    on_listening(
        Listening(
            address=f"{bracketed(settings.host)}:{port}",
            policy=scheduler.policy.name,
            engine=engine.name,
            ranker_version=loaded.reference if loaded else "",
            http_address=http_address,
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


async def _set_health(health: health_aio.HealthServicer, status: int) -> None:
    for service in SERVICES:
        await health.set(service, status)
