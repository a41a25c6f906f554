"""How a client reaches its server."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True, frozen=True)
class Timeout:
    """How long the client waits, in seconds. None: for ever.

    Attributes:
        connect_s: for a server to come up (``wait_ready``).
        call_s: for the answer to a short call: cancel, get_request, stats, score, list_ranker_versions.
        activate_s: for a ranker version to be loaded and the queue scored again.
        generate_s: for the whole answer to one request (``generate``, ``complete``). A request's
            ``deadline_ms`` bounds it at the server instead, which frees its place there.
    """

    connect_s: float = 10.0
    call_s: float | None = 30.0
    activate_s: float | None = 300.0
    generate_s: float | None = None


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
