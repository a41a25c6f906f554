"""The settings of access, made into what a server needs."""

import asyncio
import ipaddress
from typing import TYPE_CHECKING

import grpc
import structlog

from rankserve.server.access.certificates import ServerCertificates
from rankserve.server.access.library_logs import keep_values_out_of_library_logs
from rankserve.server.access.tokens import TokenStore
from rankserve.server.admission import WaitingLimits
from rankserve.server.rpc.grpc_server import make_server
from rankserve.server.rpc.interceptors.caller import CallerInterceptor
from rankserve.server.rpc.interceptors.malformed import MalformedMessageInterceptor
from rankserve.server.rpc.interceptors.open_streams import OpenStreams, OpenStreamsInterceptor

if TYPE_CHECKING:
    from rankserve.server.settings import ServerSettings

log = structlog.get_logger(__name__)

# Calls beside the streams of a connection: short ones, and streams that are to be refused with a reason.
_SHORT_CALLS_PER_CONNECTION = 1000


class Access:
    """Who may call a server, and how callers reach it.

    Args:
        settings: its own.

    Raises:
        ValueError: they contradict each other, or a file they name cannot be used.
    """

    def __init__(self, settings: "ServerSettings") -> None:
        _check(settings)
        self._settings = settings
        limits = WaitingLimits(settings.max_waiting_per_tenant, settings.max_waiting_bytes_per_tenant)
        self.tokens = TokenStore(settings.token_file, limits) if settings.token_file is not None else None
        self.certificates: ServerCertificates | None = None
        if settings.tls_certificate is not None and settings.tls_key is not None:
            self.certificates = ServerCertificates(
                settings.tls_certificate, settings.tls_key, settings.tls_client_ca
            )
        self.streams = OpenStreams(settings.max_open_streams, settings.max_open_streams_per_caller)
        if self.tokens is not None and self.certificates is None and not is_loopback(settings.host):
            log.warning(
                "tokens_travel_in_clear",
                remedy="give --tls-certificate and --tls-key, unless a proxy in front speaks TLS",
            )

    def make_server(self, *more: grpc.aio.ServerInterceptor) -> grpc.aio.Server:
        """The gRPC server, without services. To be called where its event loop runs.

        Args:
            more: interceptors of calls that were let in.
        """
        keep_values_out_of_library_logs(asyncio.get_running_loop())
        interceptors = [
            CallerInterceptor(self.tokens, self._settings.reflection),
            OpenStreamsInterceptor(self.streams),
            MalformedMessageInterceptor(),
            *more,
        ]
        return make_server(self.tokens, interceptors, _grpc_options(self._settings))

    def add_port(self, server: grpc.aio.Server) -> int:
        """Makes the server listen as the settings say; returns its port.

        Raises:
            OSError: the address cannot be bound.
        """
        host, port = self._settings.host, self._settings.port
        address = f"{bracketed(host)}:{port}"
        try:
            if self.certificates is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, self.certificates.credentials())
        except RuntimeError as error:
            raise OSError(f"cannot listen on {host}:{port}: is the port in use?") from error

    @property
    def reloads(self) -> bool:
        """Whether there are files that may change."""
        return bool(self._files())

    def reload(self) -> None:
        """Reads all files again, on SIGHUP say. What cannot be used changes nothing, and the log says so."""
        for files in self._files():
            files.reload()

    async def watch(self) -> None:
        """Reads files again as they change, until it is cancelled."""
        await asyncio.gather(*(files.watch() for files in self._files()))

    def _files(self) -> list[TokenStore | ServerCertificates]:
        return [files for files in (self.tokens, self.certificates) if files is not None]


def _check(settings: "ServerSettings") -> None:
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise ValueError("TLS needs both --tls-certificate and --tls-key")
    if settings.tls_client_ca is not None and settings.tls_certificate is None:
        raise ValueError("--tls-client-ca needs --tls-certificate and --tls-key beside it")
    if settings.token_file is not None or settings.allow_unauthenticated:
        return
    for host in _hosts_without_guard(settings):
        if not is_loopback(host):
            raise ValueError(
                f"listening on {host} lets anyone on the network in: give --token-file FILE,"
                " or --allow-unauthenticated if that is meant"
            )


def _hosts_without_guard(settings: "ServerSettings") -> list[str]:
    """Where nobody is asked for anything, unless there are tokens."""
    hosts = [] if settings.tls_client_ca is not None else [settings.host]
    if settings.http_port is not None and settings.tls_client_ca is None:
        hosts.append(http_host(settings))
    if settings.operations_port is not None:
        hosts.append(settings.operations_host)
    return hosts


def http_host(settings: "ServerSettings") -> str:
    """Where the OpenAI-compatible API listens."""
    return settings.http_host or settings.host


def _grpc_options(settings: "ServerSettings") -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),
        # One message beyond this ends its whole stream, so a prompt that is merely too long must pass.
        ("grpc.max_receive_message_length", max(4 << 20, settings.max_prompt_bytes + (64 << 10))),
        # Both, or gRPC refuses some calls between them by chance.
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.max_concurrent_streams", settings.max_open_streams_per_caller + _SHORT_CALLS_PER_CONNECTION),
        # Clients that vanished without a word are noticed within a minute and a half.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Clients that ask for a sign of life more often than twice a minute are cut off at the third time.
        ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
        ("grpc.http2.max_ping_strikes", 2),
        # A connection that does not get through its TLS handshake is given up.
        ("grpc.server_handshake_timeout_ms", 20_000),
    ]


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bracketed(host: str) -> str:
    """A host as addresses with a port write it."""
    return f"[{host}]" if ":" in host else host
