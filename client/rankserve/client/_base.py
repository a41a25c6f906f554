"""What both clients are made with."""

from collections.abc import Iterable, Mapping

from rankserve.client._calls import Reach
from rankserve.client._channel import Dialler, Metadata, auth_metadata
from rankserve.client._config import Limits, Retry, Timeout, TlsConfig
from rankserve.client._target import Target, Targets
from rankserve.client._tracing import trace_metadata

DEFAULT_TIMEOUT = Timeout()
DEFAULT_LIMITS = Limits()
DEFAULT_RETRY = Retry()


class BaseClient:
    """Connection settings of one client.

    Args:
        target: "host:port", any gRPC name such as "dns:///rankserve:50051", or the "host:port" of each of
            several replicas. Calls are spread over replicas that say they are healthy. Host names among
            several addresses are looked up once, now.
        timeout: how long to wait for what.
        limits: sizes to accept.
        retry: when ``generate``, ``complete`` and short calls are tried again.
        tls: encrypts the connection; without it everything, the token too, travels in the clear.
        token: sent with each call as ``authorization: Bearer``; never logged.

    Raises:
        ValueError: the target is not an address, or several hosts over TLS have no common name.
        OSError: the host of one of several addresses is not known.
    """

    def __init__(
        self,
        target: Targets,
        *,
        timeout: Timeout = DEFAULT_TIMEOUT,
        limits: Limits = DEFAULT_LIMITS,
        retry: Retry = DEFAULT_RETRY,
        tls: TlsConfig | None = None,
        token: str | None = None,
    ) -> None:
        self._to = Target.parse(target)
        self._dialler = Dialler(self._to, limits, tls, retry)
        self._timeout = timeout
        self._retry = retry
        self._auth = auth_metadata(token)
        self._closed = False

    @property
    def _metadata(self) -> Metadata:
        """What goes along with a call that is made now."""
        return self._auth + trace_metadata()

    @property
    def target(self) -> str:
        """The address this client was made for; several with commas between."""
        return self._to.text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.target!r}, tls={self._dialler.tls is not None})"

    @property
    def _replicas(self) -> tuple[str | None, ...]:
        """The address of each replica; None alone for the target as a whole."""
        return self._to.addresses if len(self._to.addresses) > 1 else (None,)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"this {type(self).__name__} is closed")

    def _check_reach(self, reach: Reach, method: str) -> None:
        if reach is Reach.ONE and self._to.balanced:
            raise ValueError(
                f"{method} changes one server: make a client for its own address, not for {self.target}"
            )


def positions_of(requests: Iterable[str] | Mapping[str, int]) -> dict[str, int]:
    """The offset to watch each request from."""
    if isinstance(requests, str):
        raise ValueError("watch() takes ids, or a mapping from ids to offsets, not one string")
    if isinstance(requests, Mapping):
        return dict(requests)
    return dict.fromkeys(requests, 0)
