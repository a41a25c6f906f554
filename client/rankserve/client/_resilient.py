"""Many requests on as many streams as it takes, async."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from rankserve.client._batching import batches
from rankserve.client._channel import Metadata
from rankserve.client._config import Retry
from rankserve.client._convert import events_from_proto
from rankserve.client._exceptions import ConnectionFailed, RankServeError
from rankserve.client._ledger import Ledger, Outcome
from rankserve.client._status import from_rpc_error
from rankserve.client._types import Event, Request
from rankserve.v1 import scheduler_pb2

Watch = Callable[[Mapping[str, int]], AsyncIterator[Event]]


class AsyncResilientSubmitStream:
    """An AsyncSubmitStream that outlives the servers it talks to::

        async with client.submit(retry=Retry()) as stream:
            await stream.send_many(requests)
            await stream.done_sending()
            async for event in stream:
                ...

    When a stream breaks or its server drains, what has no token yet goes out again on a new stream, with the
    same ids, and detached requests are watched from where they were. The caller sees Accepted and Queued at
    most once, no token twice, and exactly one terminal event a request; Failed if ``retry`` is used up, or
    the connection was lost amid an answer. Neither sending nor iterating raises a RankServeError for a broken
    stream.
    """

    def __init__(
        self, method: Callable[..., Any], watch: Watch, metadata: Metadata, target: str, retry: Retry
    ) -> None:
        self._method = method
        self._watch = watch
        self._metadata = metadata
        self._target = target
        self._ledger = Ledger(retry)
        self._link: _Link | None = None
        self._links = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        # A consumer that is slow slows the server down, which bounds what waits for it.
        self._incoming: asyncio.Queue[list[Event]] = asyncio.Queue(64)
        self._undelivered = 0
        self._events: deque[Event] = deque()
        self._fault: BaseException | None = None
        self._sent_all = False
        self._open = False

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        # Each reader cancels its own call.
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def send(self, request: Request) -> str:
        """Sends a request and returns its id. Waits only for the transport to take the message.

        Raises:
            InvalidRequest: the request holds a value that cannot be sent.
            ValueError: its id is that of a request that has not ended.
        """
        (request_id,) = await self.send_many([request])
        return request_id

    async def send_many(self, requests: Iterable[Request]) -> list[str]:
        """Sends requests, many in a message, and returns their ids; see ``send``."""
        self._check_open()
        if self._sent_all:
            raise RuntimeError("done_sending() was called: this stream takes no more requests")
        sent = []
        packages = batches(requests)
        self._ledger.add([request for packed, _ in packages for request in packed])
        for packed, message in packages:
            # grpc.aio cancels the whole call when a write is cancelled.
            await asyncio.shield(self._start(self._transmit(packed, message)))
            sent += [request.id for request in packed]
        return sent

    async def done_sending(self) -> None:
        """Says that no more requests come, so that iteration ends with the last open one."""
        self._check_open()
        self._sent_all = True
        await self._deliver([])

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        self._check_open()
        while not self._events:
            if self._fault is not None:
                raise self._fault
            if self._sent_all and self._ledger.empty and not self._undelivered:
                raise StopAsyncIteration
            self._events.extend(await self._incoming.get())
            self._undelivered -= 1
        return self._events.popleft()

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError("use the stream inside `async with client.submit(retry=...) as stream`")

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note_end)
        return task

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._fault = fault
            if not self._incoming.full():
                self._undelivered += 1
                self._incoming.put_nowait([])

    async def _deliver(self, events: list[Event]) -> None:
        self._undelivered += 1
        await self._incoming.put(events)

    async def _transmit(self, requests: Sequence[Request], message: scheduler_pb2.SubmitRequest) -> None:
        if self._link is None:
            self._links += 1
            self._link = _Link(self._links, self._method(metadata=self._metadata))
            self._start(self._read(self._link))
        link = self._link
        self._ledger.carry(link.number, [request.id for request in requests])
        await link.write(message)

    async def _read(self, link: "_Link") -> None:
        error: RankServeError = ConnectionFailed(f"the server at {self._target} ended the stream")
        try:
            while (response := await link.call.read()) is not grpc.aio.EOF:
                await self._act(link, self._ledger.take(link.number, events_from_proto(response.events)))
        except grpc.RpcError as problem:
            error = from_rpc_error(problem, self._target)
        finally:
            link.call.cancel()
        await self._act(link, self._ledger.lose(link.number, error))

    async def _act(self, link: "_Link | None", outcome: Outcome) -> None:
        if outcome.leaving and link is not None:
            if self._link is link:
                self._link = None
            self._start(link.half_close())
        if outcome.again:
            self._start(self._send_again(outcome.again, outcome.delay_s))
        if outcome.watch:
            self._start(self._follow(outcome.watch))
        if outcome.events:
            await self._deliver(outcome.events)

    async def _send_again(self, requests: list[Request], delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        for packed, message in batches(requests):
            await self._transmit(packed, message)

    async def _follow(self, positions: Mapping[str, int]) -> None:
        self._links += 1
        link = self._links
        self._ledger.follow(link, positions)
        try:
            async for event in self._watch(positions):
                await self._act(None, self._ledger.take(link, [event]))
        except RankServeError as error:
            await self._act(None, self._ledger.lose_watch(link, error))


class _Link:
    """One Submit call. Its reader learns of whatever goes wrong with it."""

    def __init__(self, number: int, call: Any) -> None:
        self.number = number
        self.call = call
        self._writing = asyncio.Lock()
        self._half_closed = False

    async def write(self, message: scheduler_pb2.SubmitRequest) -> None:
        async with self._writing:
            try:
                await self.call.write(message)
            except (grpc.RpcError, asyncio.InvalidStateError):
                return
            except asyncio.CancelledError:
                # Of the call by its reader, or of the task that writes?
                task = asyncio.current_task()
                if not self.call.cancelled() or (task is not None and task.cancelling()):
                    raise

    async def half_close(self) -> None:
        async with self._writing:
            if not self._half_closed:
                self._half_closed = True
                try:
                    await self.call.done_writing()
                except (grpc.RpcError, asyncio.InvalidStateError):
                    return
