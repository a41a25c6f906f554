"""What interceptors put in the place of a method's handler."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from rankserve.server.errors import RequestError
from rankserve.server.rpc.errors import abort

# Handlers of any method pass here, so their message types are not known.
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


def refusal(error: RequestError, on_refusal: Callable[[str], None]) -> Any:
    """A handler that ends the call with the error, whatever the method's kind, before it reads anything.

    Args:
        error: one of the error table.
        on_refusal: called with the address of the client.
    """

    async def refuse(_requests: Any, context: Any) -> AsyncIterator[Any]:
        on_refusal(context.peer())
        await abort(context, error)
        yield

    return grpc.stream_stream_rpc_method_handler(refuse)
