"""Connections that the application can cut, as happens where a process dies."""

import asyncio

from starlette.types import Receive, Scope, Send

from rankserve.server.http_server import HttpConnection

_TRANSPORT = "rankserve.transport"


class CuttableConnection(HttpConnection):
    """One whose application finds its transport in the scope."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        application = self.app

        async def cuttable(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {_TRANSPORT: {"transport": transport}}
            await application(scope, receive, send)

        self.app = cuttable


def cut(scope: Scope) -> None:
    """Closes the connection of a request in the middle of its response; what was sent still arrives."""
    _transport(scope).close()


def abort(scope: Scope) -> None:
    """Closes it at once."""
    _transport(scope).abort()


def _transport(scope: Scope) -> asyncio.Transport:
    transport: asyncio.Transport = scope["extensions"][_TRANSPORT]["transport"]
    return transport
