"""Channels and stubs, the same for both clients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from rankserve.client._config import Limits, TlsConfig
from rankserve.v1 import ranker_pb2_grpc, scheduler_pb2_grpc

Metadata = tuple[tuple[str, str], ...]

# A server whose machine vanished would else leave a queued request waiting for ever. Servers refuse pings
# that come more often than every 300 s unless told otherwise.
KEEPALIVE_MS = 360_000
KEEPALIVE_TIMEOUT_MS = 20_000


def auth_metadata(token: str | None) -> Metadata:
    return () if token is None else (("authorization", f"Bearer {token}"),)


def async_channel(target: str, limits: Limits, tls: TlsConfig | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(target, options=_options(limits, tls))
    return grpc.aio.secure_channel(target, _credentials(tls), options=_options(limits, tls))


def sync_channel(target: str, limits: Limits, tls: TlsConfig | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(target, options=_options(limits, tls))
    return grpc.secure_channel(target, _credentials(tls), options=_options(limits, tls))


@dataclass(slots=True, frozen=True)
class Stubs:
    """The stubs of both services on one channel. Calls on a grpc.aio channel are awaitable."""

    scheduler: Any
    ranker: Any

    @classmethod
    def on(cls, channel: grpc.Channel | grpc.aio.Channel) -> "Stubs":
        return cls(
            scheduler_pb2_grpc.SchedulerServiceStub(channel), ranker_pb2_grpc.RankerServiceStub(channel)
        )

    def method(self, name: str) -> Callable[..., Any]:
        """The method of that name, of whichever service has it."""
        service = self.ranker if hasattr(self.ranker, name) else self.scheduler
        method: Callable[..., Any] = getattr(service, name)
        return method


def _options(limits: Limits, tls: TlsConfig | None) -> list[tuple[str, str | int]]:
    options: list[tuple[str, str | int]] = [
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_send_message_length", limits.max_message_bytes),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ]
    if tls is not None and tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def _credentials(tls: TlsConfig) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
