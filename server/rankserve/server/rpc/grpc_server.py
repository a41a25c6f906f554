"""The gRPC server, so made that no call can end it."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import grpc
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from rankserve.server.access.bearer import authenticate
from rankserve.server.access.tokens import TokenStore
from rankserve.server.errors import NotAuthenticated
from rankserve.server.rpc.errors import abort

log = structlog.get_logger(__name__)

_UNKNOWN_METHOD = "there is no such method"


class _AioServer(cygrpc.AioServer):  # type: ignore[misc]
    """Answers calls of unknown methods itself.

    grpc.aio decodes their names as UTF-8 in the loop that takes all calls, and stops for ever at one that is
    not. Names of methods that exist are not decoded, so those calls go the usual way.
    """

    tokens: TokenStore | None = None

    async def _request_call(self) -> Any:
        tasks: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        while True:
            state = await super()._request_call()
            context = cygrpc._ServicerContext(state, None, None, loop)
            task = loop.create_task(self._refuse(context))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _refuse(self, context: Any) -> None:
        # The client may be gone before it can be told.
        with suppress(grpc.aio.AbortError, cygrpc.ExecuteBatchError):
            try:
                authenticate(self.tokens, context.invocation_metadata())
            except NotAuthenticated as error:
                await abort(context, error)
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, _UNKNOWN_METHOD)


def make_server(
    tokens: TokenStore | None,
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    options: Sequence[tuple[str, int]],
) -> grpc.aio.Server:
    """A grpc.aio server. Services must be added with their generated functions, which register methods.

    Args:
        tokens: who may learn that a method is unknown; None: everybody.
        interceptors, options: as grpc.aio.server takes them.
    """
    original = cygrpc.AioServer
    if not hasattr(original, "_request_registered_call"):
        # Takes all calls the same way, so they cannot be told apart before.
        return grpc.aio.server(interceptors=interceptors, options=options)
    # grpc.aio has no way to bring one's own.
    cygrpc.AioServer = _AioServer
    try:
        server = grpc.aio.server(interceptors=interceptors, options=options)
    finally:
        cygrpc.AioServer = original
    server._server.tokens = tokens  # type: ignore[attr-defined]
    return server
