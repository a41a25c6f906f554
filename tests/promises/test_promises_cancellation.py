"""Promise: what is cancelled or late ends at once, in whatever state it is, and leaves nothing behind.

100 random cancels, 1,000 by `make promises`: before a request is scored, while it waits, is prefilled,
decodes, waits again after a preemption, and when it has finished; by CancelRequest, by a lost Submit stream
and by a lost Generate call. Every RPC with a deadline that has passed, of 1 ms and of 50 ms: through gRPC's
client, which ends a late call by itself, and as bytes, where only the server can. And deadlines of requests.
"""

import asyncio
import random
import sqlite3
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from support.messages import code, inference, reason
from support.process_samples import Observed
from support.promises import FULL, note
from support.raw_http2 import end_of_call
from support.server_process import Connection, StartServer
from support.submit_stream import SubmitStream

from rankserve.v1 import admin_pb2, ranker_pb2
from rankserve.v1 import scheduler_pb2 as pb

SEED = 5
CANCELS = 1000 if FULL else 100
CANCELS_PER_WAVE = 50
DEADLINES = 500 if FULL else 100
MOST_S = 0.100
MOST_LATE_S = 0.050
# gRPC's timers count milliseconds.
CLOCK_S = 0.002

# So few KV blocks that running requests are evicted, so few tokens a step that a prompt takes several.
CROWDED = (
    *("--replay", "--time-scale", "4", "--max-sequences", "16", "--max-batched-tokens", "64"),
    *("--kv-blocks", "100", "--retain-results", "200"),
)
STATES = ("unscored", "waiting", "prefilling", "decoding", "preempted", "finished")


@pytest.mark.parametrize("journal", [False, True], ids=["memory", "journal"])
async def test_random_cancels_leave_nothing_behind(
    start_server: StartServer, tmp_path: Path, journal: bool
) -> None:
    path = tmp_path / "journal.db"
    server = start_server(
        *CROWDED, *("--operations-port", "0"), *(("--journal", str(path)) if journal else ())
    )
    observed = Observed(server.process.pid, server.listening["operations_address"])
    draw = random.Random(SEED)
    in_state: Counter[str] = Counter()
    until_zero_s = []
    async with Connection(server.address) as connection:
        idle_tasks = await tasks_of(observed)
        for number in range(CANCELS // CANCELS_PER_WAVE):
            async with Wave(connection, number, draw, in_state) as wave:
                # The second holds up the ranker, so that its requests wait, and run, without a score.
                await wave.begin(holds_up_ranker=number % 3 == 1)
                await wave.cancel(CANCELS_PER_WAVE)
                unfinished = await wave.far_from_finished()
                lost_s = time.perf_counter()
            await connection.until_stats(holds_nothing)
            if journal:
                await nothing_unfinished(path)
            until_zero_s.append(time.perf_counter() - lost_s)
            async with asyncio.timeout(30):
                while await tasks_of(observed) > idle_tasks:
                    await asyncio.sleep(0.02)
            assert not unfinished & await wave.finished()
        stats = await connection.until_idle()
    assert stats.cancelled_total + stats.finished_total == stats.accepted_total
    assert min(in_state[state] for state in STATES) > 0, in_state
    note(
        "cancellation with a journal" if journal else "cancellation",
        seed=SEED,
        cancelled_by_id=dict(in_state),
        cancelled_in_all=stats.cancelled_total,
        preemptions=stats.preemptions_total,
        worst_ms_until_zero=f"{1000 * max(until_zero_s):.1f}",
    )
    if FULL:
        assert max(until_zero_s) < MOST_S


async def tasks_of(server: Observed) -> float:
    """Tasks of its event loop, that which answers this among them."""
    return (await asyncio.to_thread(server.metrics))["rankserve_asyncio_tasks"]


def holds_nothing(stats: pb.GetStatsResponse) -> bool:
    live = stats.scoring + stats.waiting + stats.running + stats.waiting_bytes + stats.journal_live
    return not live + stats.kv_blocks_used + stats.open_streams


async def nothing_unfinished(journal: Path) -> None:
    """Waits until the file holds no request that has not ended, and no token of one."""
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as file:
        async with asyncio.timeout(30):
            while any(
                file.execute(query).fetchone() != (0,)
                for query in (
                    "SELECT count(*) FROM requests WHERE end_time IS NULL",
                    "SELECT count(*) FROM tokens",
                )
            ):
                await asyncio.sleep(0.002)


class Wave:
    """60 requests on four streams and six Generate calls, of which some are cancelled by id.

    Leaving it loses all of them; before, what was cancelled is told so, once.
    """

    def __init__(
        self, connection: Connection, number: int, draw: random.Random, in_state: Counter[str]
    ) -> None:
        self._connection = connection
        self._name = f"wave-{number}-"
        self._draw = draw
        self._in_state = in_state
        self._streams = [SubmitStream(connection.scheduler) for _ in range(4)]
        self._stream_of: dict[str, SubmitStream] = {}
        self._brief: set[str] = set()
        self._calls: list[Any] = []
        self._reading: list[asyncio.Task[None]] = []
        self._answers: dict[str, bool] = {}

    async def __aenter__(self) -> "Wave":
        return self

    async def __aexit__(self, *_: object) -> None:
        for stream in self._streams:
            stream.lose()
        for call in self._calls:
            call.cancel()
        for stream in self._streams:
            await stream.ended()
        await asyncio.gather(*self._reading)

    async def begin(self, *, holds_up_ranker: bool) -> None:
        for n in range(6):
            request = pb.GenerateRequest(request=self._request(f"g{n}"))
            self._calls.append(self._connection.scheduler.Generate(request))
            self._reading.append(asyncio.create_task(_read(self._calls[-1])))
        for number, stream in enumerate(self._streams):
            requests = [self._request(f"{number}-{n}") for n in range(15)]
            if holds_up_ranker:
                requests[0].prompt += " slow"
            self._stream_of |= dict.fromkeys((request.id for request in requests), stream)
            await stream.send_together(*requests)

    async def cancel(self, count: int) -> None:
        while len(self._answers) < count:
            request_id = await self._choose()
            request = pb.CancelRequestRequest(request_id=request_id)
            answer = await self._connection.scheduler.CancelRequest(request)
            self._answers[request_id] = answer.cancelled
            await asyncio.sleep(self._draw.random() * 0.02)
        for request_id, cancelled in self._answers.items():
            if request_id not in self._stream_of:
                continue
            stream = self._stream_of[request_id]
            await stream.until_ended(request_id)
            stream.history.check([request_id])
            if cancelled:
                assert reason(stream.history.failure(request_id).status) == "CANCELLED"
            else:
                stream.history.result(request_id)

    async def far_from_finished(self) -> set[str]:
        """Those that live and cannot finish in the time that it takes to lose them."""
        return {
            listed.request_id
            for listed in await self._list()
            if state_of(listed) != "finished" and listed.output_tokens < 200
        } - self._brief

    async def finished(self) -> set[str]:
        return {
            listed.request_id for listed in await self._list() if listed.state == pb.REQUEST_STATE_FINISHED
        }

    def _request(self, name: str) -> pb.InferenceRequest:
        brief = self._draw.random() < 0.2
        if brief:
            self._brief.add(self._name + name)
        return inference(
            self._name + name,
            words=self._draw.randint(1, 20),
            output=1 if brief else self._draw.randint(300, 1000),
            max_tokens=1000,
            replay_input_tokens=1 if brief else self._draw.randint(50, 300),
        )

    async def _choose(self) -> str:
        """A request that was not chosen before, in the state of which the fewest were."""
        found: dict[str, list[str]] = {}
        async with asyncio.timeout(60):
            while not found:
                for listed in await self._list():
                    if listed.request_id not in self._answers:
                        found.setdefault(state_of(listed), []).append(listed.request_id)
        state = min(self._draw.sample(sorted(found), len(found)), key=lambda state: self._in_state[state])
        self._in_state[state] += 1
        return self._draw.choice(found[state])

    async def _list(self) -> list[pb.RequestSummary]:
        """The wave's requests, those that ended too."""
        listed: list[pb.RequestSummary] = []
        token = ""
        while True:
            page = await self._connection.scheduler.ListRequests(
                pb.ListRequestsRequest(page_size=1000, page_token=token)
            )
            listed += (request for request in page.requests if request.request_id.startswith(self._name))
            if not (token := page.next_page_token):
                return listed


def state_of(listed: pb.RequestSummary) -> str:
    produced = listed.output_tokens > 0
    match listed.state:
        case pb.REQUEST_STATE_ACCEPTED:
            return "unscored"
        case pb.REQUEST_STATE_WAITING:
            return "preempted" if produced else "waiting"
        case pb.REQUEST_STATE_RUNNING:
            return "decoding" if produced else "prefilling"
    return "finished"


async def _read(call: Any) -> None:
    with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        async for _ in call:
            pass


METHODS: list[MethodDescriptor] = [
    method
    for file in (pb, ranker_pb2, admin_pb2, health_pb2, reflection_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
# Calls that no message of theirs ends within a second.
LONG = {"Submit", "Generate", "WatchStats"}


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def message_of(method: MethodDescriptor) -> Message:
    """Makes Submit, Generate and WatchStats go on for long, the others answer at once."""
    request = inference(f"late-{random.getrandbits(64):x}", output=8000)
    messages: dict[str, Message] = {
        "Submit": pb.SubmitRequest(request=request),
        "Generate": pb.GenerateRequest(request=request),
        "Score": ranker_pb2.ScoreRequest(prompts=[request.prompt]),
        "ServerReflectionInfo": reflection_pb2.ServerReflectionRequest(list_services=""),
    }
    return messages.get(method.name) or message_factory.GetMessageClass(method.input_type)()


# As gRPC writes them; a nanosecond has passed before anybody can look.
@pytest.mark.parametrize(("timeout", "timeout_s"), [(b"1n", 0.0), (b"1m", 0.001), (b"50m", 0.050)])
async def test_the_server_ends_every_call_at_its_deadline(
    start_server: StartServer, timeout: bytes, timeout_s: float
) -> None:
    server = start_server("--replay")
    late_s = {}
    async with Connection(server.address) as connection:
        for method in METHODS:
            path = path_of(method)
            # No message comes, so no method can answer anything else.
            status, taken_s = await end_of_call(
                server.address, path.encode(), [(b"grpc-timeout", timeout)], None
            )
            assert status == StatusCode.DEADLINE_EXCEEDED.value[0], path
            assert taken_s > timeout_s - CLOCK_S, path
            late_s[path] = taken_s - timeout_s
            if method.name in LONG:
                data = message_of(method).SerializeToString()
                status, taken_s = await end_of_call(
                    server.address, path.encode(), [(b"grpc-timeout", timeout)], data
                )
                assert status == StatusCode.DEADLINE_EXCEEDED.value[0], path
                assert taken_s > timeout_s - CLOCK_S, path
                late_s[f"{path} with a request"] = taken_s - timeout_s
        await connection.until_stats(holds_nothing)
        await connection.until_idle()
    worst = max(late_s, key=lambda path: late_s[path])
    note(
        f"deadline {1000 * timeout_s:g} ms, ended by the server",
        calls=len(late_s),
        worst_ms_late=f"{1000 * late_s[worst]:.1f}",
        worst=worst,
    )
    if FULL:
        assert late_s[worst] < MOST_LATE_S


# One of 0 s is sent, and may be answered before anybody looks at the clock.
@pytest.mark.parametrize("timeout_s", [-1.0, 0.001, 0.050], ids=["expired", "1ms", "50ms"])
async def test_every_call_of_a_client_ends_at_its_deadline(
    start_server: StartServer, timeout_s: float
) -> None:
    server = start_server("--replay")
    late_s = {}
    exceeded = 0
    async with Connection(server.address) as connection:
        await connection.stats()
        for method in METHODS:
            path = path_of(method)
            began_s = time.perf_counter()
            status = await call_with(connection.channel, method, timeout_s)
            late_s[path] = time.perf_counter() - began_s - max(timeout_s, 0.0)
            exceeded += status is StatusCode.DEADLINE_EXCEEDED
            endless = method.name in LONG or method.client_streaming
            # What answers in time may answer; what had no time, or goes on, cannot.
            assert status is StatusCode.DEADLINE_EXCEEDED or (timeout_s > 0 and not endless), path
            assert status not in (StatusCode.INTERNAL, StatusCode.UNKNOWN), path
        await connection.until_stats(holds_nothing)
        await connection.until_idle()
    worst = max(late_s, key=lambda path: late_s[path])
    note(
        f"deadline {1000 * timeout_s:g} ms, with gRPC's client",
        calls=len(late_s),
        exceeded=exceeded,
        worst_ms_late=f"{1000 * late_s[worst]:.1f}",
        worst=worst,
    )
    if FULL:
        assert late_s[worst] < MOST_LATE_S


async def call_with(channel: grpc.aio.Channel, method: MethodDescriptor, timeout_s: float) -> StatusCode:
    """Calls a method, leaves the call open for more messages, reads to the end; returns the status."""
    kind = [
        "stream" if streams else "unary" for streams in (method.client_streaming, method.server_streaming)
    ]
    multicallable = getattr(channel, "_".join(kind))(
        path_of(method),
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    message = message_of(method)
    call = (
        multicallable(timeout=timeout_s)
        if method.client_streaming
        else multicallable(message, timeout=timeout_s)
    )
    try:
        if method.client_streaming:
            await call.write(message)
        if method.server_streaming:
            while await call.read() is not grpc.aio.EOF:
                pass
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        # The status says why.
        pass
    status: StatusCode = await call.code()
    if status is StatusCode.INTERNAL and await call.details() == "Internal error from Core":
        # grpc.aio's own client, which wrote while the call ended: one in twenty at a millisecond.
        return await call_with(channel, method, timeout_s)
    return status


async def test_requests_end_at_their_deadlines(start_server: StartServer) -> None:
    server = start_server(*CROWDED)
    draw = random.Random(SEED)
    deadlines_ms = {f"r{n}": draw.randint(1, 2000) for n in range(DEADLINES)}
    sent_s: dict[str, float] = {}
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        for request_id, deadline_ms in deadlines_ms.items():
            output = draw.randint(1, 1000)
            request = inference(request_id, output=output, max_tokens=1000, deadline_ms=deadline_ms)
            sent_s[request_id] = time.perf_counter()
            await stream.send(request)
            await asyncio.sleep(draw.random() * 0.01)
        history = await stream.finish()
        stats = await connection.until_idle()
    late_s = {
        request_id: history.ended_s[request_id] - sent_s[request_id] - deadlines_ms[request_id] / 1000
        for request_id in deadlines_ms
    }
    expired = history.ids_with["failed"]
    for request_id in expired:
        status = history.failure(request_id).status
        assert (code(status), reason(status)) == (StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED")
        assert late_s[request_id] >= 0, f"{request_id} was ended before its deadline"
    assert stats.expired_total == len(expired) > 0
    assert stats.finished_total == len(history.ids_with["finished"]) > 0
    worst_s = max(late_s[request_id] for request_id in deadlines_ms)
    note(
        "deadlines of requests",
        seed=SEED,
        n=DEADLINES,
        expired=len(expired),
        worst_ms_late=f"{1000 * worst_s:.1f}",
    )
    if FULL:
        assert worst_s < MOST_LATE_S
