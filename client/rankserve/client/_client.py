"""The async client."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc

from rankserve.client import _calls, _convert
from rankserve.client._base import BaseClient
from rankserve.client._channel import Stubs, async_channel
from rankserve.client._exceptions import ConnectionFailed, InternalError
from rankserve.client._options import Input, RequestOptions, make_request
from rankserve.client._status import from_rpc_error
from rankserve.client._stream import AsyncSubmitStream
from rankserve.client._types import (
    Activation,
    Completion,
    Event,
    Failed,
    Finished,
    RankerVersionInfo,
    RequestStatus,
    Scores,
    Stats,
)
from rankserve.v1 import scheduler_pb2

T = TypeVar("T")


class AsyncSchedulerClient(BaseClient):
    """Talks to one RankServe server from asyncio::

        async with AsyncSchedulerClient("localhost:50051") as client:
            completion = await client.complete("Why is the sky blue?", max_tokens=200)

    Every method may raise a RankServeError. The connection is made by the first call and shared by all; one
    client serves any number of tasks of one event loop.
    """

    _channel: grpc.aio.Channel | None = None
    _stubs: Stubs

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection. Calls in flight are cancelled."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def wait_ready(self) -> None:
        """Waits until the server can be reached. Raises ConnectionFailed after ``timeout.connect_s``."""
        channel, _ = self._connect()
        try:
            async with asyncio.timeout(self._timeout.connect_s):
                await channel.channel_ready()
        except TimeoutError:
            raise ConnectionFailed(
                f"no RankServe server answered at {self._target} within {self._timeout.connect_s:g} s"
            ) from None

    async def generate(self, source: Input, /, **options: Unpack[RequestOptions]) -> AsyncIterator[Event]:
        """Sends one request and yields its events: Accepted, Queued, Tokens..., Finished.

        Leaving the iteration early cancels the request.

        Args:
            source: a prompt, the messages of a chat, or a Request.
            options: fields of Request.

        Raises:
            RankServeError: also where a ``submit()`` stream would carry a Failed event.
        """
        request = make_request(source, options)
        message = scheduler_pb2.GenerateRequest(request=_convert.request_to_proto(request))
        _, stubs = self._connect()
        call = stubs.scheduler.Generate(message, timeout=self._timeout.generate_s, metadata=self._metadata)
        try:
            async for response in call:
                for event in _convert.events_from_proto(response.events):
                    if isinstance(event, Failed):
                        raise event.error
                    yield event
                    if isinstance(event, Finished):
                        return
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._target) from None
        finally:
            call.cancel()
        raise InternalError(f"the server ended the stream before request {request.id!r} had ended")

    async def complete(self, source: Input, /, **options: Unpack[RequestOptions]) -> Completion:
        """Sends one request and returns the whole answer; see ``generate``."""
        options["result_only"] = True
        completion = None
        async for event in self.generate(source, **options):
            if isinstance(event, Finished):
                completion = event.completion
        assert completion is not None, "generate() ends with Finished or raises"
        return completion

    def submit(self) -> AsyncSubmitStream:
        """A stream that carries many requests at once; see AsyncSubmitStream."""
        _, stubs = self._connect()
        return AsyncSubmitStream(stubs.scheduler.Submit, self._metadata, self._target)

    async def cancel(self, request_id: str) -> bool:
        """Cancels a request. False if it had ended before."""
        return await self._answer(_calls.cancel(request_id))

    async def get_request(self, request_id: str) -> RequestStatus:
        """A request's state, live or recently ended. Raises NotFound for an id the server does not know."""
        return await self._answer(_calls.get_request(request_id))

    async def stats(self) -> Stats:
        """Queue, engine and scheduler counters."""
        return await self._answer(_calls.stats())

    async def score(self, prompts: Sequence[str]) -> Scores:
        """Scores 1 to 1024 prompts without queueing them."""
        return await self._answer(_calls.score(prompts))

    async def list_ranker_versions(self) -> tuple[RankerVersionInfo, ...]:
        """Every version in the server's model repository, usable or not."""
        return await self._answer(_calls.list_ranker_versions())

    async def activate_ranker_version(self, name: str, version: int = 0) -> Activation:
        """Makes a version the active one, 0 for the newest, and scores what waits with it.

        Raises:
            FailedPrecondition: it is damaged; the version active before stays active.
        """
        return await self._answer(_calls.activate_ranker_version(name, version))

    async def _answer(self, call: _calls.UnaryCall[T]) -> T:
        _, stubs = self._connect()
        try:
            response: Any = await stubs.method(call.method)(
                call.message, timeout=call.timeout_s(self._timeout), metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._target) from None
        return call.convert(response)

    def _connect(self) -> tuple[grpc.aio.Channel, Stubs]:
        # Not in __init__: a channel belongs to the event loop that runs when it is made.
        self._check_open()
        if self._channel is None:
            self._channel = async_channel(self._target, self._limits, self._tls)
            self._stubs = Stubs.on(self._channel)
        return self._channel, self._stubs
