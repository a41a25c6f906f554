"""The HTTP ports of a server, secured as its gRPC port is."""

from collections.abc import Callable

from starlette.applications import Starlette

from rankserve.server.access.wiring import Access
from rankserve.server.http_server import HttpServer
from rankserve.server.settings import ServerSettings


class HttpPorts:
    """Opened one by one, started and closed together.

    Args:
        settings: of the server.
        access: its certificates, which the ports follow.
        on_slow_client: called when a connection is cut since its client does not read.
    """

    def __init__(self, settings: ServerSettings, access: Access, on_slow_client: Callable[[], None]) -> None:
        self._settings = settings
        self._access = access
        self._on_slow_client = on_slow_client
        self._servers: list[HttpServer] = []

    def open(
        self,
        application: Starlette,
        host: str,
        port: int,
        *,
        secure: bool = True,
        client_certificates: bool = True,
    ) -> int:
        """Listens, and answers once started; returns the port.

        Args:
            application: what answers.
            host, port: where.
            secure: whether to serve TLS if the gRPC port does.
            client_certificates: whether to ask for them if the gRPC port does.

        Raises:
            OSError: the address cannot be bound.
        """
        settings = self._settings
        secure = secure and self._access.certificates is not None
        client_ca = settings.tls_client_ca if secure and client_certificates else None
        server = HttpServer(
            application,
            host,
            port,
            certificate_file=str(settings.tls_certificate) if secure else None,
            key_file=str(settings.tls_key) if secure else None,
            client_ca_file=None if client_ca is None else str(client_ca),
            slow_client_s=settings.slow_client_s,
            on_slow_client=self._on_slow_client,
        )
        context = server.tls_context()
        if self._access.certificates is not None and context is not None:
            self._access.certificates.follow(context)
        self._servers.append(server)
        return server.port

    def start(self) -> None:
        for server in self._servers:
            server.start()

    async def aclose(self) -> None:
        for server in self._servers:
            await server.aclose()
