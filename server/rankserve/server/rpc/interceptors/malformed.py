"""Whether the bytes are a message at all."""

import inspect
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from rankserve.server.rpc.interceptors.handlers import Continuation
from rankserve.server.rpc.request_ids import bind_request_id


class MalformedMessageInterceptor(grpc.aio.ServerInterceptor):
    """Answers bytes that are not the expected message with INVALID_ARGUMENT; gRPC itself says UNKNOWN."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        parse = handler.request_deserializer

        def deserialize(data: bytes) -> Any:
            try:
                return parse(data)
            except DecodeError:
                return _MALFORMED

        if handler.unary_unary:
            unary: Any = handler.unary_unary

            async def unary_unary(request: Any, context: Any) -> Any:
                await _refuse_malformed(request, context)
                return await unary(request, context)

            return grpc.unary_unary_rpc_method_handler(unary_unary, deserialize, handler.response_serializer)
        if handler.unary_stream:
            streaming: Any = handler.unary_stream

            async def unary_stream(request: Any, context: Any) -> AsyncIterator[Any]:
                await _refuse_malformed(request, context)
                responses = streaming(request, context)
                if inspect.isawaitable(responses):
                    # Not a generator: it writes to the context, as the health service's Watch does.
                    await responses
                    return
                async for response in responses:
                    yield response

            return grpc.unary_stream_rpc_method_handler(
                unary_stream, deserialize, handler.response_serializer
            )
        if handler.stream_stream:
            multiplexed: Any = handler.stream_stream

            async def stream_stream(requests: Any, context: Any) -> AsyncIterator[Any]:
                async def checked() -> AsyncIterator[Any]:
                    async for request in requests:
                        if request is _MALFORMED:
                            raise _MalformedMessageError
                        bind_request_id(request)
                        yield request

                try:
                    responses = multiplexed(checked(), context)
                    if inspect.isawaitable(responses):
                        await responses
                        return
                    async for response in responses:
                        yield response
                except _MalformedMessageError:
                    # Not where it was read: a status sent amid a write is lost, and the client waits forever.
                    await _refuse_malformed(_MALFORMED, context)

            return grpc.stream_stream_rpc_method_handler(
                stream_stream, deserialize, handler.response_serializer
            )
        return handler


_MALFORMED = object()


class _MalformedMessageError(Exception):
    """Passes through the method that reads the messages."""


async def _refuse_malformed(request: Any, context: Any) -> None:
    if request is _MALFORMED:
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT, "the message is not the protobuf this method takes"
        )
    bind_request_id(request)
