"""What both clients are made with."""

from rankserve.client._channel import Metadata, auth_metadata
from rankserve.client._config import Limits, Timeout, TlsConfig
from rankserve.client._tracing import trace_metadata

DEFAULT_TIMEOUT = Timeout()
DEFAULT_LIMITS = Limits()


class BaseClient:
    """Connection settings of one client.

    Args:
        target: "host:port", or any gRPC name.
        timeout: how long to wait for what.
        limits: sizes to accept.
        tls: encrypts the connection; without it everything, the token too, travels in the clear.
        token: sent with each call as ``authorization: Bearer``; never logged.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout: Timeout = DEFAULT_TIMEOUT,
        limits: Limits = DEFAULT_LIMITS,
        tls: TlsConfig | None = None,
        token: str | None = None,
    ) -> None:
        self._target = target
        self._timeout = timeout
        self._limits = limits
        self._tls = tls
        self._auth = auth_metadata(token)
        self._closed = False

    @property
    def _metadata(self) -> Metadata:
        """What goes along with a call that is made now."""
        return self._auth + trace_metadata()

    @property
    def target(self) -> str:
        """The address this client was made for."""
        return self._target

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._target!r}, tls={self._tls is not None})"

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"this {type(self).__name__} is closed")
