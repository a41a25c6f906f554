"""HTTP beside gRPC, in the same event loop."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from starlette.applications import Starlette


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals stay with whoever handles them for the whole process."""
        yield


class HttpServer:
    """Serves a Starlette application until it is closed.

    Args:
        application: what to serve.
        host, port: where to listen; port 0 takes a free one.
        certificate_file, key_file: PEM files for TLS; None for plain HTTP.
        client_ca_file: whose certificates callers must have; None asks for none.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(
        self,
        application: Starlette,
        host: str,
        port: int,
        *,
        certificate_file: str | None = None,
        key_file: str | None = None,
        client_ca_file: str | None = None,
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family)
        self.port: int = self._socket.getsockname()[1]
        self.config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            ssl_certfile=certificate_file,
            ssl_keyfile=key_file,
            ssl_ca_certs=client_ca_file,
            ssl_cert_reqs=2 if client_ca_file else 0,
            timeout_graceful_shutdown=5,
        )
        self._server = _Server(self.config)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Serves from now on."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def aclose(self) -> None:
        """Takes no more connections and ends once those there are have been answered, or after 5 s."""
        self._server.should_exit = True
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await self._task
        self._socket.close()
