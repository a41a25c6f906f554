"""HTTP beside gRPC, in the same event loop."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

# Whoever connects has something to ask.
_FIRST_REQUEST_S = 30.0


class _Config(uvicorn.Config):
    slow_client_s: float
    on_slow_client: Callable[[], None]


class HttpConnection(H11Protocol):
    """A connection, cut when its client does not read or never asks; uvicorn would wait forever."""

    config: _Config
    _cut: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Writing pauses as soon as the kernel takes no more: what is not read is noticed, however little.
        # Not 0: TLS would pause with nothing to write, and so for ever.
        transport.set_write_buffer_limits(high=1, low=0)
        self._first_request = self.loop.call_later(_FIRST_REQUEST_S, self._cut_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        self._first_request.cancel()
        self._keep()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """To a request whose body goes wrong, too: its application is let go, or it would answer as well."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._keep()
        self._cut = self.loop.call_later(self.config.slow_client_s, self._cut_slow_client)

    def resume_writing(self) -> None:
        self._keep()
        super().resume_writing()

    def _keep(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None

    def _cut_slow_client(self) -> None:
        self.config.on_slow_client()
        self.transport.abort()

    def _cut_if_silent(self) -> None:
        if self.cycle is None:
            self.transport.abort()


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
        slow_client_s: how long a client may read nothing of what it is sent before its connection is cut.
        on_slow_client: called when one is.
        connection: what makes a connection.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(
        self,
        application: ASGIApp,
        host: str,
        port: int,
        *,
        certificate_file: str | None = None,
        key_file: str | None = None,
        client_ca_file: str | None = None,
        slow_client_s: float = 30.0,
        on_slow_client: Callable[[], None] = lambda: None,
        connection: type[HttpConnection] = HttpConnection,
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family)
        # Inherited by its connections; asyncio does it only for sockets of its own making. Without, the
        # kernel holds a response's body back until its head is acknowledged, some 40 ms later.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._socket.getsockname()[1]
        self.config = _Config(
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
            http=connection,
        )
        self.config.slow_client_s = slow_client_s
        self.config.on_slow_client = on_slow_client
        self._server = _Server(self.config)
        self._task: asyncio.Task[None] | None = None

    def tls_context(self) -> ssl.SSLContext | None:
        """That of connections to come; None without TLS."""
        if not self.config.loaded:
            self.config.load()
        return self.config.ssl

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
