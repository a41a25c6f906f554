"""Channels and stubs, the same for both clients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from rankserve.client._config import Limits, Retry, TlsConfig
from rankserve.client._service_config import service_config
from rankserve.client._target import Target
from rankserve.v1 import admin_pb2_grpc, ranker_pb2_grpc, scheduler_pb2_grpc

Metadata = tuple[tuple[str, str], ...]

# A server whose machine vanished would else leave a queued request waiting for ever. Servers refuse pings
# that come more often than every 300 s unless told otherwise.
KEEPALIVE_MS = 360_000
KEEPALIVE_TIMEOUT_MS = 20_000
# gRPC's own: 1 s, growing to 2 minutes, for which a server that is back would not be noticed.
FIRST_RECONNECT_MS = 200
MAX_RECONNECT_MS = 5_000


def auth_metadata(token: str | None) -> Metadata:
    return () if token is None else (("authorization", f"Bearer {token}"),)


@dataclass(slots=True, frozen=True)
class Dialler:
    """Makes channels: to all replicas together, or to one of them."""

    target: Target
    limits: Limits
    tls: TlsConfig | None
    retry: Retry

    def __post_init__(self) -> None:
        if self.tls is not None and len(self.target.addresses) > 1 and not self._server_name:
            raise ValueError(
                "several hosts over TLS need TlsConfig.server_name, a name that all their certificates hold"
            )

    def async_channel(self, address: str | None = None) -> grpc.aio.Channel:
        """To one of the target's addresses, or to the target."""
        name, options = address or self.target.name, self._options(address)
        if self.tls is None:
            return grpc.aio.insecure_channel(name, options=options)
        return grpc.aio.secure_channel(name, _credentials(self.tls), options=options)

    def sync_channel(self, address: str | None = None) -> grpc.Channel:
        """To one of the target's addresses, or to the target."""
        name, options = address or self.target.name, self._options(address)
        if self.tls is None:
            return grpc.insecure_channel(name, options=options)
        return grpc.secure_channel(name, _credentials(self.tls), options=options)

    @property
    def _server_name(self) -> str:
        assert self.tls is not None
        return self.tls.server_name or self.target.host

    def _options(self, address: str | None) -> list[tuple[str, str | int]]:
        balanced = self.target.balanced and address is None
        options: list[tuple[str, str | int]] = [
            ("grpc.max_receive_message_length", self.limits.max_message_bytes),
            ("grpc.max_send_message_length", self.limits.max_message_bytes),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.initial_reconnect_backoff_ms", FIRST_RECONNECT_MS),
            ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MS),
            ("grpc.service_config", service_config(self.retry, balanced=balanced)),
            # A config that DNS hands out would replace ours.
            ("grpc.service_config_disable_resolution", 1),
        ]
        if self.tls is not None and self._server_name:
            options.append(("grpc.ssl_target_name_override", self._server_name))
        return options


@dataclass(slots=True, frozen=True)
class Stubs:
    """The stubs of all services on one channel. Calls on a grpc.aio channel are awaitable."""

    scheduler: Any
    ranker: Any
    admin: Any

    @classmethod
    def on(cls, channel: grpc.Channel | grpc.aio.Channel) -> "Stubs":
        return cls(
            scheduler_pb2_grpc.SchedulerServiceStub(channel),
            ranker_pb2_grpc.RankerServiceStub(channel),
            admin_pb2_grpc.AdminServiceStub(channel),
        )

    def method(self, name: str) -> Callable[..., Any]:
        """The method of that name, of whichever service has it."""
        for service in (self.scheduler, self.ranker, self.admin):
            if (method := getattr(service, name, None)) is not None:
                return method  # type: ignore[no-any-return]
        raise AttributeError(name)


def _credentials(tls: TlsConfig) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
