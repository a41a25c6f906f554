"""How a client reaches its server."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True, frozen=True)
class Timeout:
    """How long the client waits, in seconds. None: for ever.

    Attributes:
        connect_s: for a server to come up (``wait_ready``).
        call_s: for the answer to a short call, such as cancel, get_request, stats, score or list_requests.
        activate_s: for a ranker version to be loaded, and the queue scored again.
        generate_s: for the whole answer to one request (``generate``, ``complete``), all its attempts
            together. A request's ``deadline_ms`` bounds it at the server instead, which frees its place
            there.
        reattach_s: for a lost server to come back (``watch``, ``watch_stats``, detached requests).
    """

    connect_s: float = 10.0
    call_s: float | None = 30.0
    activate_s: float | None = 300.0
    generate_s: float | None = None
    reattach_s: float = 60.0


@dataclass(slots=True, frozen=True)
class Retry:
    """When a request that the server could not serve is sent again, with the same id.

    That is when its server drains, cannot record or serve, or cannot be reached - and never once a token of
    its answer was received, which would come twice. Waits between attempts double, with jitter.

    Attributes:
        attempts: how often a request is sent at most; 1: never again.
        first_backoff_s: about how long to wait before the second attempt.
        max_backoff_s: longest wait between two attempts, unless the server asks for a longer one.
        queue_full: send again, after the time that the server asks for, what a full queue or a quota refused.
    """

    attempts: int = 5
    first_backoff_s: float = 0.1
    max_backoff_s: float = 2.0
    queue_full: bool = False

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, got {self.attempts}")
        if not 0 < self.first_backoff_s <= self.max_backoff_s:
            raise ValueError(
                "backoffs must be above 0 and max_backoff_s not below first_backoff_s,"
                f" got {self.first_backoff_s} and {self.max_backoff_s}"
            )

    def backoff_s(self, attempt: int, draw: Callable[[], float] = random.random) -> float:
        """How long to wait after that many attempts: half of the doubled wait, and up to as much again."""
        longest_s = min(self.first_backoff_s * 2.0 ** min(attempt - 1, 30), self.max_backoff_s)
        return longest_s * (0.5 + draw() / 2)


@dataclass(slots=True, frozen=True)
class Limits:
    """Sizes the client accepts.

    Attributes:
        max_message_bytes: largest message in either direction. One message carries many events.
    """

    max_message_bytes: int = 64 * 1024 * 1024


@dataclass(slots=True, frozen=True)
class TlsConfig:
    """TLS, and mutual TLS where a certificate is given. All values are PEM.

    Attributes:
        root_certificates: whom to trust; None for the system's.
        certificate_chain: this client's certificate, for mutual TLS.
        private_key: its key.
        server_name: the name expected in the server's certificate, if not the target's.
    """

    root_certificates: bytes | None = None
    certificate_chain: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate_chain is None) != (self.private_key is None):
            raise ValueError("mutual TLS needs both certificate_chain and private_key")

    @classmethod
    def from_files(
        cls,
        root_certificates: Path | str | None = None,
        certificate_chain: Path | str | None = None,
        private_key: Path | str | None = None,
        *,
        server_name: str | None = None,
    ) -> "TlsConfig":
        """Reads the PEM files. Raises OSError if one cannot be read."""

        def read(path: Path | str | None) -> bytes | None:
            return None if path is None else Path(path).read_bytes()

        return cls(read(root_certificates), read(certificate_chain), read(private_key), server_name)
