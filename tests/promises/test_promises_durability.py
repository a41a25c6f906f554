"""Promise: what was acknowledged outlives kill -9, and nobody is told anything twice or misses a token.

A server with a journal is killed at random moments while clients submit (detached and not, with tokens or
only the result), cancel, drop their streams, and after each restart attach again where they were. All that
they were told is judged against a model at the end. 6 kills by default, 200 by `make promises`; PROMISES_SEED
repeats the choices of a run.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, time

import grpc
import pytest
from support.lives import ServerLives
from support.messages import inference, reason
from support.promises import FULL, note
from support.recorded_history import RecordedHistory
from support.server_process import Connection

from rankserve.v1 import scheduler_pb2 as pb

KILLS = 200 if FULL else 6
CLIENTS = 4
# Requests that a client has open at most.
OPEN = 30
OPTIONS = (
    *("--max-sequences", "8", "--policy", "fcfs", "--no-fair-share"),
    *("--retain-results", "1000000", "--retain-s", "86400"),
)
# Where a call ends when the server dies, or the client drops it.
GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
WATCHED_AT_ONCE = 1000
END_TIMEOUT_S = 120


class Service:
    """Where the server is at the moment, if it is."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self._changed = asyncio.Condition()

    async def set(self, connection: Connection | None) -> None:
        async with self._changed:
            self.connection = connection
            self._changed.notify_all()

    async def get(self, other_than: Connection | None) -> Connection:
        async with self._changed:
            await self._changed.wait_for(lambda: self.connection not in (None, other_than))
            assert self.connection is not None
            return self.connection


class Client:
    """Submits and attaches again until it is told to end, then until all its requests have."""

    def __init__(self, name: str, seed: str, service: Service, history: RecordedHistory) -> None:
        self._name = name
        self._random = random.Random(f"{seed}-{name}")
        self._service = service
        self._history = history
        self._streams = 0
        self._requests: dict[str, pb.InferenceRequest] = {}
        self._over = False

    @property
    def open(self) -> list[str]:
        return [i for i in self._requests if not self._history.has_ended(self._name, i)]

    def end(self) -> None:
        self._over = True

    async def run(self) -> None:
        connection = None
        while self.open or not self._over:
            connection = await self._service.get(connection)
            try:
                async with asyncio.TaskGroup() as streams:
                    streams.create_task(self._attach(connection, self.open))
                    if not self._over:
                        streams.create_task(self._submit(connection))
            except* grpc.aio.AioRpcError as errors:
                if any(error.code() not in GONE for error in _calls(errors)):
                    raise
            else:
                # The server lives on, and so does this client.
                connection = None

    async def _attach(self, connection: Connection, request_ids: list[str]) -> None:
        """Watches what it has open; what the server never got, it submits again."""
        unknown: list[pb.InferenceRequest] = []
        if request_ids:
            positions = [
                pb.WatchPosition(request_id=i, offset=self._history.tokens(self._name, i))
                for i in request_ids
            ]
            async for event in self._events(connection.scheduler.Watch(pb.WatchRequest(positions=positions))):
                if event.HasField("failed") and reason(event.failed.status) == "REQUEST_NOT_FOUND":
                    self._history.knows_nothing(self._name, event.request_id)
                    unknown.append(self._requests[event.request_id])
        if unknown:
            call = connection.scheduler.Submit()
            await self._write(call, unknown)
            await call.done_writing()
            async for _ in self._events(call):
                pass

    async def _submit(self, connection: Connection) -> None:
        """Submits on one stream, cancels now and then, drops the stream at times."""
        call = connection.scheduler.Submit()
        reading = asyncio.create_task(self._read(call))
        mine: set[str] = set()
        try:
            while not self._over and not reading.done():
                await asyncio.sleep(self._random.uniform(0.0, 0.05))
                if len(self.open) < OPEN:
                    requests = [self._new_request() for _ in range(self._random.randint(1, 8))]
                    mine.update(request.id for request in requests)
                    await self._write(call, requests)
                if self.open and self._random.random() < 0.15:
                    await self._cancel(connection, self._random.choice(self.open))
                if self._random.random() < 0.02:
                    self._history.loses_stream(mine)
                    call.cancel()
                    break
            else:
                if not reading.done():
                    await call.done_writing()
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        dropped = [i for i in mine if not self._history.has_ended(self._name, i)]
        if dropped:
            await self._attach(connection, dropped)

    async def _read(self, call: grpc.aio.StreamStreamCall[pb.SubmitRequest, pb.SubmitResponse]) -> None:
        try:
            async for _ in self._events(call):
                pass
        except asyncio.CancelledError:
            if not call.cancelled():
                raise

    async def _events(
        self, call: AsyncIterable[pb.SubmitResponse] | AsyncIterable[pb.WatchResponse]
    ) -> AsyncIterator[pb.RequestEvent]:
        self._streams += 1
        stream = f"{self._name}/{self._streams}"
        async for response in call:
            for event in response.events:
                not_found = event.HasField("failed") and reason(event.failed.status) == "REQUEST_NOT_FOUND"
                if not not_found:
                    self._history.tells(self._name, stream, event)
                yield event

    async def _write(
        self,
        call: grpc.aio.StreamStreamCall[pb.SubmitRequest, pb.SubmitResponse],
        requests: list[pb.InferenceRequest],
    ) -> None:
        # If the stream has ended meanwhile, whoever reads it learns why.
        with suppress(asyncio.InvalidStateError, grpc.aio.UsageError):
            await call.write(pb.SubmitRequest(requests=requests))

    async def _cancel(self, connection: Connection, request_id: str) -> None:
        self._history.cancels(request_id, None)
        try:
            message = pb.CancelRequestRequest(request_id=request_id)
            answer = await connection.scheduler.CancelRequest(message)
        except grpc.aio.AioRpcError as error:
            # Its Submit may be on its way still.
            if error.code() not in (*GONE, grpc.StatusCode.NOT_FOUND):
                raise
        else:
            self._history.cancels(request_id, answer.cancelled)

    def _new_request(self) -> pb.InferenceRequest:
        request = inference(
            f"{self._name}-{len(self._requests)}",
            output=self._random.randint(1, 60),
            detached=self._random.random() < 0.5,
            result_only=self._random.random() < 0.2,
        )
        self._requests[request.id] = request
        self._history.sends(request)
        return request


def _calls(errors: BaseExceptionGroup[grpc.aio.AioRpcError]) -> list[grpc.aio.AioRpcError]:
    return [error for error in errors.exceptions if isinstance(error, grpc.aio.AioRpcError)]


@pytest.fixture
def lives(tmp_path: Path, repository: Path) -> Iterator[ServerLives]:
    with ServerLives(tmp_path / "lives", repository, *OPTIONS) as lives:
        yield lives


async def audit(connection: Connection, history: RecordedHistory) -> None:
    """Somebody who has seen nothing yet is told all of it, the same as the others."""
    ids = list(history.accepted)
    for start in range(0, len(ids), WATCHED_AT_ONCE):
        positions = [pb.WatchPosition(request_id=i) for i in ids[start : start + WATCHED_AT_ONCE]]
        async for response in connection.scheduler.Watch(pb.WatchRequest(positions=positions)):
            for event in response.events:
                history.tells("auditor", f"auditor/{start}", event)


async def test_what_was_acknowledged_outlives_kill_9(lives: ServerLives) -> None:
    seed = os.environ.get("PROMISES_SEED") or (f"{random.SystemRandom().randrange(10**9)}" if FULL else "0")
    note("durability", PROMISES_SEED=seed)
    moments = random.Random(seed)
    history, service = RecordedHistory(), Service()
    clients = [Client(f"c{number}", seed, service, history) for number in range(CLIENTS)]
    recovered, down_s = 0, 0.0
    # Clients may not have noticed yet that a server is gone: all stay open to the end.
    connections: list[Connection] = []
    async with asyncio.TaskGroup() as running:
        for client in clients:
            running.create_task(client.run())
        for life in range(KILLS + 1):
            began_s = monotonic()
            history.life_begins(time())
            server = await asyncio.to_thread(lives.start)
            down_s += monotonic() - began_s
            connection = Connection(server.address)
            connections.append(connection)
            recovered += (await connection.stats()).recovered_total
            await service.set(connection)
            if life < KILLS:
                await asyncio.sleep(moments.uniform(0.05, 1.2))
                await service.set(None)
                await asyncio.to_thread(lives.kill)
        for client in clients:
            client.end()
    async with asyncio.timeout(END_TIMEOUT_S):
        stats = await connection.until_idle()
        await audit(connection, history)
    for used in connections:
        await used.channel.close()
    history.check()
    note(
        "durability",
        kills=KILLS,
        requests=len(history.accepted),
        finished=history.finished,
        resumed=recovered,
        tokens=history.told_tokens,
        restart_s=f"{down_s / (KILLS + 1):.1f}",
    )
    assert recovered > 0, "no kill met a request, so nothing was tested"
    assert stats.journal_live == 0
    assert stats.journal_retained == len(history.accepted)
