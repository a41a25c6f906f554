"""What every call passes first: who calls, and whether the bytes are a message at all."""

import hmac
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from rankserve.server.rpc.request_ids import bind_request_id

# Handlers of any method pass here, so their message types are not known.
_Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]
_OPEN_METHODS = "/grpc.health.v1.Health/"


class MalformedMessageInterceptor(grpc.aio.ServerInterceptor):
    """Answers bytes that are not the expected message with INVALID_ARGUMENT; gRPC itself says UNKNOWN."""

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
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
                        await _refuse_malformed(request, context)
                        yield request

                responses = multiplexed(checked(), context)
                if inspect.isawaitable(responses):
                    await responses
                    return
                async for response in responses:
                    yield response

            return grpc.stream_stream_rpc_method_handler(
                stream_stream, deserialize, handler.response_serializer
            )
        return handler


_MALFORMED = object()


async def _refuse_malformed(request: Any, context: Any) -> None:
    if request is _MALFORMED:
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT, "the message is not the protobuf this method takes"
        )
    bind_request_id(request)


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Lets calls pass that carry ``authorization: Bearer <token>``; health checks always."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        if handler_call_details.method.startswith(_OPEN_METHODS):
            return await continuation(handler_call_details)
        metadata = dict(handler_call_details.invocation_metadata or ())
        given = metadata.get("authorization", "")
        if not hmac.compare_digest(given.encode() if isinstance(given, str) else given, self._expected):
            # Whatever the method's kind: this one answers before it reads.
            return grpc.stream_stream_rpc_method_handler(_refuse_unauthenticated)
        return await continuation(handler_call_details)


async def _refuse_unauthenticated(_requests: Any, context: Any) -> AsyncIterator[Any]:
    await context.abort(
        grpc.StatusCode.UNAUTHENTICATED, "missing or wrong token: send 'authorization: Bearer TOKEN'"
    )
    yield


def read_token(path: Path) -> str:
    """The token in a file.

    Raises:
        ValueError: empty or too short to be a secret.
        OSError: unreadable.
    """
    token = path.read_text(encoding="utf-8").strip()
    if len(token) < 16:
        raise ValueError(f"{path}: a token must be at least 16 characters")
    return token
