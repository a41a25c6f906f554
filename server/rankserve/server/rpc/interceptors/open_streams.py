"""How many streaming calls are open, in total and of one caller."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc

from rankserve.server.access.method_roles import OPEN_SERVICE
from rankserve.server.access.principal import ANYBODY, NOBODY, current_principal
from rankserve.server.errors import InvalidRequest, RequestError, TooManyStreams
from rankserve.server.rpc.errors import abort
from rankserve.server.rpc.interceptors.handlers import Continuation

# Whoever opens a call has its request at hand.
_FIRST_MESSAGE_S = 30.0


class OpenStreams:
    """Counts open calls.

    Args:
        limit: the most in total, not counting those of callers without a token where tokens are configured.
        limit_per_caller: the most of one principal, and of all that need no token together. Holds where
            callers can be told apart, so not for ANYBODY.
    """

    def __init__(self, limit: int, limit_per_caller: int) -> None:
        self._limit = limit
        self._limit_per_caller = limit_per_caller
        self._by_caller: Counter[str] = Counter()
        self.total = 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Counts a call of the current principal while it lasts.

        Raises:
            TooManyStreams: there is no room for it.
        """
        principal = current_principal()
        # Those who have no token must not take the place of those who have.
        counts_in_total = principal is not NOBODY
        if counts_in_total and self.total >= self._limit:
            raise TooManyStreams(self._limit, "of this server")
        if principal is not ANYBODY and self._by_caller[principal.name] >= self._limit_per_caller:
            raise TooManyStreams(self._limit_per_caller, "of this caller")
        self.total += counts_in_total
        self._by_caller[principal.name] += 1
        try:
            yield
        finally:
            self.total -= counts_in_total
            self._by_caller[principal.name] -= 1
            if not self._by_caller[principal.name]:
                del self._by_caller[principal.name]


class OpenStreamsInterceptor(grpc.aio.ServerInterceptor):
    """Refuses streaming calls beyond the limits with RESOURCE_EXHAUSTED, before it reads their requests.

    Health checks, which anybody may open and leave open, are counted whatever their kind.
    """

    def __init__(self, streams: OpenStreams) -> None:
        self._streams = streams

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        if handler.stream_stream:
            serve: Any = handler.stream_stream
        elif handler.unary_stream:
            serve = _reading_first(handler.unary_stream)
        elif handler.unary_unary and handler_call_details.method.startswith(OPEN_SERVICE):
            serve = _reading_first(_answering_once(handler.unary_unary))
        else:
            return handler

        async def counted(requests: Any, context: Any) -> AsyncIterator[Any]:
            try:
                with self._streams.hold():
                    async with aclosing(serve(requests, context)) as responses:
                        async for response in responses:
                            yield response
            except RequestError as error:
                await abort(context, error)

        return grpc.stream_stream_rpc_method_handler(
            counted, handler.request_deserializer, handler.response_serializer
        )


def _reading_first(serve: Any) -> Any:
    """A handler of one request as one of a stream, so that the call counts while its request is awaited."""

    async def read_and_serve(requests: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async with asyncio.timeout(_FIRST_MESSAGE_S):
                request = await anext(requests)
        except (StopAsyncIteration, TimeoutError):
            raise InvalidRequest("request", "none came; send it as the call begins") from None
        async with aclosing(serve(request, context)) as responses:
            async for response in responses:
                yield response

    return read_and_serve


def _answering_once(serve: Any) -> Any:
    async def answer(request: Any, context: Any) -> AsyncIterator[Any]:
        yield await serve(request, context)

    return answer
