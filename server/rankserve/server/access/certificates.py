"""The server's certificate, which may change while the server runs."""

import ssl
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import structlog

from rankserve.server.watched_files import WatchedFiles, warn_if_others_read

log = structlog.get_logger(__name__)


class CertificateError(ValueError):
    """Certificate files that cannot be used; the message says which and why."""


@dataclass(slots=True, frozen=True)
class _Pem:
    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        pair = (self.key, self.certificate)
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=self.client_ca)


class ServerCertificates:
    """A certificate and its key, and whose certificates clients must have.

    A new connection gets what the files held last; connections that are open go on with what they began with.

    Args:
        certificate: PEM, the server's own certificate first, then those between it and its CA.
        key: PEM, without a password.
        client_ca: PEM of the CAs that sign clients' certificates. None asks clients for none.

    Raises:
        CertificateError: they cannot be used.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._watched = WatchedFiles(*(path for path in (certificate, key, client_ca) if path is not None))
        self._watched.changed()
        self._current = self._read()
        # Taken by gRPC's own threads as they accept a connection.
        self._renewed: deque[_Pem] = deque(maxlen=1)
        self._followers: list[ssl.SSLContext] = []

    def credentials(self) -> grpc.ServerCredentials:
        """For `add_secure_port`. They follow the files; ask for them once."""
        return grpc.dynamic_ssl_server_credentials(
            self._current.configuration(),
            self._take_renewed,  # type: ignore[arg-type] # None is allowed: nothing new
            require_client_authentication=self._client_ca is not None,
        )

    def follow(self, context: ssl.SSLContext) -> None:
        """Keeps the certificate of another TLS server, of HTTP say, up to date too."""
        self._followers.append(context)

    def reload(self) -> bool:
        """Reads the files again; returns False, and keeps what is in use, if they cannot be used."""
        try:
            renewed = self._read()
            for context in self._followers:
                self._load_into(context)
        except CertificateError as error:
            log.error(
                "certificate_unusable", problem=str(error), effect="the certificate before stays in use"
            )
            return False
        if renewed != self._current:
            self._current = renewed
            self._renewed.append(renewed)
            log.info("certificate_loaded", certificate=str(self._certificate))
        return True

    async def watch(self) -> None:
        """Reads the files again whenever one changes, within a second, until it is cancelled."""
        await self._watched.watch(self.reload)

    def _take_renewed(self) -> grpc.ServerCertificateConfiguration | None:
        try:
            return self._renewed.pop().configuration()
        except IndexError:
            return None

    def _read(self) -> _Pem:
        pem = self._read_files()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load_into(context)
        if pem.client_ca is not None:
            try:
                context.load_verify_locations(cadata=pem.client_ca.decode("ascii"))
            except (ssl.SSLError, UnicodeDecodeError, ValueError):
                raise CertificateError(f"{self._client_ca}: holds no PEM certificate of a CA") from None
        # Checked were the files, served is what was read: it must be the same.
        if pem != self._read_files():
            raise CertificateError(f"{self._certificate}: changed while it was read")
        warn_if_others_read(
            self._key, lambda mode: log.warning("tls_key_readable_by_others", mode=mode, path=str(self._key))
        )
        return pem

    def _read_files(self) -> _Pem:
        return _Pem(
            _read(self._certificate),
            _read(self._key),
            None if self._client_ca is None else _read(self._client_ca),
        )

    def _load_into(self, context: ssl.SSLContext) -> None:
        asked_for_password = False

        def password() -> str:
            # Without this, OpenSSL would ask on the terminal.
            nonlocal asked_for_password
            asked_for_password = True
            return ""

        try:
            context.load_cert_chain(self._certificate, self._key, password)
        except OSError as error:
            if asked_for_password:
                why = "the key has a password; give one without"
            elif not isinstance(error, ssl.SSLError):
                why = error.strerror or type(error).__name__
            elif error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
                why = "the key belongs to another certificate"
            else:
                why = "a file does not hold what it must, in PEM"
            raise CertificateError(
                f"TLS certificate {self._certificate} with key {self._key}: {why}"
            ) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path}: cannot be read: {error.strerror}") from None
