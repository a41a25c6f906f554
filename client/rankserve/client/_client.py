"""The async client."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

import grpc

from rankserve.client import _calls, _convert, _convert_server
from rankserve.client._attempts import Generation
from rankserve.client._base import (
    DEFAULT_LIMITS,
    DEFAULT_RETRY,
    DEFAULT_TIMEOUT,
    BaseClient,
    positions_of,
)
from rankserve.client._calls import Reach
from rankserve.client._channel import Stubs
from rankserve.client._config import Limits, Retry, Timeout, TlsConfig
from rankserve.client._exceptions import ConnectionFailed, InternalError, RankServeError
from rankserve.client._options import Input, RequestOptions, make_request
from rankserve.client._resilient import AsyncResilientSubmitStream
from rankserve.client._server_types import (
    Activation,
    PolicyChange,
    RankerVersionInfo,
    RequestSummary,
    Scores,
    Stats,
)
from rankserve.client._status import from_rpc_error
from rankserve.client._stream import AsyncSubmitStream
from rankserve.client._target import Targets
from rankserve.client._types import Completion, Event, Finished, RequestState, RequestStatus
from rankserve.client._watch import AsyncWatch
from rankserve.v1 import scheduler_pb2

T = TypeVar("T")


class AsyncSchedulerClient(BaseClient):
    """Talks to a RankServe server, or to several replicas of one, from asyncio::

        async with AsyncSchedulerClient("localhost:50051") as client:
            completion = await client.complete("Why is the sky blue?", max_tokens=200)

    Every method may raise a RankServeError. The connection is made by the first call and shared by all; one
    client serves any number of tasks of one event loop. What changes a server, such as ``drain``, needs a
    client of that one address and raises ValueError otherwise.
    """

    def __init__(
        self,
        target: Targets,
        *,
        timeout: Timeout = DEFAULT_TIMEOUT,
        limits: Limits = DEFAULT_LIMITS,
        retry: Retry = DEFAULT_RETRY,
        tls: TlsConfig | None = None,
        token: str | None = None,
    ) -> None:
        super().__init__(target, timeout=timeout, limits=limits, retry=retry, tls=tls, token=token)
        self._channels: dict[str | None, grpc.aio.Channel] = {}
        self._stubs: dict[str | None, Stubs] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection. Calls in flight are cancelled."""
        self._closed = True
        for channel in self._channels.values():
            await channel.close()

    async def wait_ready(self) -> None:
        """Waits until a server can be reached. Raises ConnectionFailed after ``timeout.connect_s``."""
        self._connect()
        try:
            async with asyncio.timeout(self._timeout.connect_s):
                await self._channels[None].channel_ready()
        except TimeoutError:
            raise ConnectionFailed(
                f"no RankServe server answered at {self.target} within {self._timeout.connect_s:g} s"
            ) from None

    async def generate(self, source: Input, /, **options: Unpack[RequestOptions]) -> AsyncIterator[Event]:
        """Sends one request and yields its events: Accepted, Queued, Tokens..., Finished.

        A request that its server could not serve is sent again, as the client's ``retry`` says; a detached
        one that was accepted is watched instead. Leaving the iteration early cancels the request.

        Args:
            source: a prompt, the messages of a chat, or a Request.
            options: fields of Request.

        Raises:
            RankServeError: also where a ``submit()`` stream would carry a Failed event.
        """
        generation = Generation(make_request(source, options), self._retry)
        loop = asyncio.get_running_loop()
        timeout_s = self._timeout.generate_s
        end_s = None if timeout_s is None else loop.time() + timeout_s
        while True:
            left_s = None if end_s is None else max(0.0, end_s - loop.time())
            attempt = self._reattach(generation) if generation.reattaches else self._send(generation, left_s)
            try:
                async with aclosing(attempt) as events:
                    async for event in events:
                        if (news := generation.take(event)) is not None:
                            yield news
                        if isinstance(event, Finished):
                            return
                raise InternalError(
                    f"the server ended the stream before request {generation.request.id!r} had ended"
                )
            except RankServeError as error:
                pause_s = generation.after(error)
                if end_s is not None and loop.time() + pause_s >= end_s:
                    raise
            await asyncio.sleep(pause_s)

    async def complete(self, source: Input, /, **options: Unpack[RequestOptions]) -> Completion:
        """Sends one request and returns the whole answer; see ``generate``."""
        options["result_only"] = True
        completion = None
        async for event in self.generate(source, **options):
            if isinstance(event, Finished):
                completion = event.completion
        assert completion is not None, "generate() ends with Finished or raises"
        return completion

    @overload
    def submit(self, *, retry: None = None) -> AsyncSubmitStream: ...
    @overload
    def submit(self, *, retry: Retry) -> AsyncResilientSubmitStream: ...
    def submit(self, *, retry: Retry | None = None) -> AsyncSubmitStream | AsyncResilientSubmitStream:
        """A stream that carries many requests at once; see AsyncSubmitStream.

        With ``retry`` it outlives its server; see AsyncResilientSubmitStream.
        """
        method = self._connect().scheduler.Submit
        if retry is None:
            return AsyncSubmitStream(method, self._metadata, self.target)
        return AsyncResilientSubmitStream(method, self._watch, self._metadata, self.target, retry)

    async def watch(self, requests: Iterable[str] | Mapping[str, int]) -> AsyncIterator[Event]:
        """Yields the events of requests that were accepted before, until all of them have ended.

        A lost connection is made again, as often as it takes, and no token comes twice. One that no server
        knows has only Failed with NotFound. Leaving the iteration cancels nothing.

        Args:
            requests: ids; or how many tokens of each were received already, by id.

        Raises:
            ConnectionFailed: a server that may have one of them was out of reach for ``timeout.reattach_s``.
        """
        async with aclosing(self._watch(positions_of(requests))) as events:
            async for event in events:
                yield event

    async def cancel(self, request_id: str) -> bool:
        """Cancels a request. False if it had ended before."""
        return await self._answer(_calls.cancel(request_id))

    async def get_request(self, request_id: str) -> RequestStatus:
        """A request's state, live or recently ended. Raises NotFound for an id the server does not know."""
        return await self._answer(_calls.get_request(request_id))

    async def list_requests(
        self, *, states: Iterable[RequestState] = (), tenant: str | None = None, page_size: int = 0
    ) -> AsyncIterator[RequestSummary]:
        """Requests, live and recently ended, in the order they were accepted; of one replica after the other.

        Args:
            states: only those in one of these; empty: all.
            tenant: only those of this one; None: all that the caller may see.
            page_size: how many to fetch at a time, 1000 at most; 0: as many as the server likes.
        """
        states = tuple(states)
        for replica in self._replicas:
            page_token = ""
            while True:
                call = _calls.list_requests(states, tenant, page_size, page_token)
                page, page_token = await self._ask(replica, call)
                for summary in page:
                    yield summary
                if not page_token:
                    break

    async def stats(self) -> Stats:
        """Queue, engine and scheduler counters; of any one replica."""
        return await self._answer(_calls.stats())

    async def watch_stats(self, interval_ms: int = 1000) -> AsyncIterator[Stats]:
        """Yields the counters every ``interval_ms`` (100 to 60000), of any one replica, until it stops."""
        call = self._connect().scheduler.WatchStats(_calls.watch_stats(interval_ms), metadata=self._metadata)
        try:
            async for response in call:
                yield _convert_server.stats_from_proto(response.stats)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.target) from None
        finally:
            call.cancel()

    async def score(self, prompts: Sequence[str]) -> Scores:
        """Scores 1 to 1024 prompts without queueing them."""
        return await self._answer(_calls.score(prompts))

    async def list_ranker_versions(self) -> tuple[RankerVersionInfo, ...]:
        """Every version in the server's model repository, usable or not."""
        return await self._answer(_calls.list_ranker_versions())

    async def load_ranker_version(self, name: str, version: int = 0) -> RankerVersionInfo:
        """Loads a version, 0 for the newest, so that to activate it takes no longer than to score what waits.

        Raises:
            FailedPrecondition: it is damaged.
        """
        return await self._answer(_calls.load_ranker_version(name, version))

    async def activate_ranker_version(self, name: str, version: int = 0) -> Activation:
        """Makes a version the active one, 0 for the newest, and scores what waits with it.

        Raises:
            FailedPrecondition: it is damaged; the version active before stays active.
        """
        return await self._answer(_calls.activate_ranker_version(name, version))

    async def drain(self) -> int:
        """Lets the server accept no more and serve what it has; returns how many requests that is."""
        return await self._answer(_calls.drain())

    async def pause(self) -> int:
        """Lets the server start no more requests; returns how many wait."""
        return await self._answer(_calls.pause())

    async def resume(self) -> None:
        """Ends ``drain`` and ``pause``."""
        await self._answer(_calls.resume())

    async def set_policy(self, policy: str) -> PolicyChange:
        """Orders all that waits and comes by another policy, named as `rankserve serve --policy` takes it.

        Raises:
            FailedPrecondition: the active ranker version does not give what the policy needs.
        """
        return await self._answer(_calls.set_policy(policy))

    async def _send(self, generation: Generation, timeout_s: float | None) -> AsyncGenerator[Event, None]:
        message = scheduler_pb2.GenerateRequest(request=generation.message)
        call = self._connect().scheduler.Generate(message, timeout=timeout_s, metadata=self._metadata)
        try:
            async for response in call:
                for event in _convert.events_from_proto(response.events):
                    yield event
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.target) from None
        finally:
            call.cancel()

    def _reattach(self, generation: Generation) -> AsyncGenerator[Event, None]:
        return self._watch({generation.request.id: generation.received})

    def _watch(self, positions: Mapping[str, int]) -> AsyncGenerator[Event, None]:
        methods = [self._connect(replica).scheduler.Watch for replica in self._replicas]
        watch = AsyncWatch(methods, self._metadata, self.target, self._retry, self._timeout.reattach_s)
        return watch.events(positions)

    async def _answer(self, call: _calls.UnaryCall[T]) -> T:
        self._check_reach(call.reach, call.method)
        if call.reach is not Reach.HOLDER or len(self._replicas) == 1:
            return await self._ask(None, call)

        async def ask(replica: str | None) -> T | RankServeError:
            try:
                return await self._ask(replica, call)
            except RankServeError as error:
                return error

        return _calls.choose(await asyncio.gather(*map(ask, self._replicas)), call.final)

    async def _ask(self, replica: str | None, call: _calls.UnaryCall[T]) -> T:
        try:
            response: Any = await self._connect(replica).method(call.method)(
                call.message, timeout=call.timeout_s(self._timeout), metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error, replica or self.target) from None
        return call.convert(response)

    def _connect(self, replica: str | None = None) -> Stubs:
        # Not in __init__: a channel belongs to the event loop that runs when it is made.
        self._check_open()
        if replica not in self._stubs:
            self._channels[replica] = self._dialler.async_channel(replica)
            self._stubs[replica] = Stubs.on(self._channels[replica])
        return self._stubs[replica]
