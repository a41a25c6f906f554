"""Many requests on one stream, async."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import grpc

from rankserve.client._batching import batches
from rankserve.client._channel import Metadata
from rankserve.client._convert import events_from_proto
from rankserve.client._exceptions import ConnectionFailed, RankServeError
from rankserve.client._status import from_rpc_error
from rankserve.client._types import Event, Request
from rankserve.v1 import scheduler_pb2


class AsyncSubmitStream:
    """Requests go out and the events of all of them come back, told apart by ``request_id``::

        async with client.submit() as stream:
            await stream.send_many(Request(prompt=prompt) for prompt in prompts)
            await stream.done_sending()
            async for event in stream:
                ...

    Per request: Accepted, Queued, Tokens..., then exactly one of Finished and Failed; one refused at the door
    has only Failed. Sending and iterating may happen in different tasks, and both may be cancelled or timed
    out without harm to the stream. Iteration ends when the server has ended every request after
    ``done_sending``, and raises a RankServeError if the stream breaks. Leaving the ``async with`` cancels the
    requests that have not ended, except detached ones.
    """

    def __init__(self, method: Callable[..., Any], metadata: Metadata, target: str) -> None:
        self._method = method
        self._metadata = metadata
        self._target = target
        self._call: Any = None
        self._sending = asyncio.Lock()
        self._reading: asyncio.Task[Any] | None = None
        self._events: deque[Event] = deque()
        self._closed = False

    async def __aenter__(self) -> Self:
        self._call = self._method(metadata=self._metadata)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        if self._reading is not None:
            self._reading.cancel()
        self._call.cancel()

    async def send(self, request: Request) -> str:
        """Sends a request and returns its id. Waits only for the transport to take the message.

        Raises:
            InvalidRequest: the request holds a value that cannot be sent.
            RankServeError: the stream is broken.
        """
        (request_id,) = await self.send_many([request])
        return request_id

    async def send_many(self, requests: Iterable[Request]) -> list[str]:
        """Sends requests, many in a message, and returns their ids; see ``send``."""
        sent = []
        for packed, message in batches(requests):
            # grpc.aio cancels the whole call when a write or a read is cancelled, hence the shields.
            await asyncio.shield(self._write(message))
            sent += [request.id for request in packed]
        return sent

    async def done_sending(self) -> None:
        """Says that no more requests come, so that the stream ends with the last open one."""
        async with self._sending:
            await self._opened().done_writing()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            call = self._opened()
            if self._reading is None:
                self._reading = asyncio.ensure_future(call.read())
            try:
                response = await asyncio.shield(self._reading)
            except grpc.RpcError as error:
                raise from_rpc_error(error, self._target) from None
            self._reading = None
            if response is grpc.aio.EOF:
                raise StopAsyncIteration
            self._events.extend(events_from_proto(response.events))
        return self._events.popleft()

    def _opened(self) -> Any:
        if self._call is None or self._closed:
            raise RuntimeError("use the stream inside `async with client.submit() as stream`")
        return self._call

    async def _write(self, message: scheduler_pb2.SubmitRequest) -> None:
        call = self._opened()
        # One write at a time is all that a gRPC call allows.
        async with self._sending:
            try:
                await call.write(message)
            except grpc.RpcError as error:
                raise from_rpc_error(error, self._target) from None
            except asyncio.InvalidStateError:
                if not call.done():
                    raise RuntimeError(
                        "done_sending() was called: this stream takes no more requests"
                    ) from None
                raise await self._broken(call) from None

    async def _broken(self, call: Any) -> RankServeError:
        code = await call.code()
        if code is grpc.StatusCode.OK:
            return ConnectionFailed(f"the server at {self._target} ended the stream")
        error = grpc.aio.AioRpcError(
            code, await call.initial_metadata(), await call.trailing_metadata(), details=await call.details()
        )
        return from_rpc_error(error, self._target)
