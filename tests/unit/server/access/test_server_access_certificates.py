"""Certificates that change while a server runs."""

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from rankserve.server.access.certificates import CertificateError, ServerCertificates

if TYPE_CHECKING:
    import trustme
else:
    trustme = pytest.importorskip("trustme")


def write(folder: Path, certificate: "trustme.LeafCert") -> tuple[Path, Path]:
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    key.chmod(0o600)
    return chain, key


def leaf() -> "trustme.LeafCert":
    return trustme.CA().issue_cert("127.0.0.1")


def renewed(certificates: ServerCertificates) -> Any:
    """What a new connection is given beyond what those before it had."""
    return certificates._take_renewed()


def test_a_new_pair_is_handed_out_once(tmp_path: Path) -> None:
    certificates = ServerCertificates(*write(tmp_path, leaf()))
    assert renewed(certificates) is None
    write(tmp_path, leaf())
    write(tmp_path, leaf())
    assert certificates.reload()
    assert renewed(certificates) is not None
    assert renewed(certificates) is None
    # Touched, not changed.
    assert certificates.reload()
    assert renewed(certificates) is None


def test_of_two_changes_between_connections_the_last_counts(tmp_path: Path) -> None:
    certificates = ServerCertificates(*write(tmp_path, leaf()))
    for _ in range(2):
        write(tmp_path, leaf())
        assert certificates.reload()
    assert renewed(certificates) is not None
    assert renewed(certificates) is None


def break_nothing(folder: Path) -> None:
    (folder / "key.pem").write_bytes(leaf().private_key_pem.bytes())


def break_key(folder: Path) -> None:
    (folder / "key.pem").write_text("not a key")


def break_chain(folder: Path) -> None:
    chain = folder / "chain.pem"
    chain.write_bytes(chain.read_bytes()[:200])


def remove_key(folder: Path) -> None:
    (folder / "key.pem").unlink()


def lock_key(folder: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    path = folder / "key.pem"
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"open sesame")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (break_nothing, "the key belongs to another certificate"),
        (break_key, "does not hold what it must, in PEM"),
        (break_chain, "does not hold what it must, in PEM"),
        (remove_key, "key.pem: cannot be read: No such file"),
        (lock_key, "the key has a password"),
    ],
)
def test_a_pair_that_cannot_be_used_is_refused_and_replaces_nothing(
    tmp_path: Path, spoil: Any, says: str
) -> None:
    certificates = ServerCertificates(*write(tmp_path, leaf()))
    spoil(tmp_path)
    with capture_logs() as logs:
        assert not certificates.reload()
    assert renewed(certificates) is None
    [line] = logs
    assert (line["event"], line["log_level"]) == ("certificate_unusable", "error")
    assert says in line["problem"]
    assert "BEGIN" not in line["problem"]
    with pytest.raises(CertificateError, match=says):
        ServerCertificates(tmp_path / "chain.pem", tmp_path / "key.pem")
    write(tmp_path, leaf())
    assert certificates.reload()
    assert renewed(certificates) is not None


@pytest.mark.parametrize("content", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nx\n", "ä"])
def test_a_client_ca_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text(content, encoding="utf-8")
    with pytest.raises(CertificateError, match=r"ca\.pem: holds no PEM certificate"):
        ServerCertificates(*write(tmp_path, leaf()), ca)


def test_a_new_client_ca_counts_too(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(trustme.CA().cert_pem.bytes())
    certificates = ServerCertificates(*write(tmp_path, leaf()), ca)
    ca.write_bytes(trustme.CA().cert_pem.bytes())
    assert certificates.reload()
    assert renewed(certificates) is not None


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """A TLS handshake in memory. Raises SSLError where the client does not trust the server."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(5):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue


def test_a_context_that_follows_serves_the_new_certificate(tmp_path: Path) -> None:
    certificates = ServerCertificates(*write(tmp_path, leaf()))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    certificates.follow(server)
    ca = trustme.CA()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(client)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client)
    write(tmp_path, ca.issue_cert("127.0.0.1"))
    assert certificates.reload()
    handshake(server, client)


def test_a_key_that_others_may_read_is_warned_of(tmp_path: Path) -> None:
    chain, key = write(tmp_path, leaf())
    key.chmod(0o644)
    with capture_logs() as logs:
        ServerCertificates(chain, key)
    assert [line["event"] for line in logs] == ["tls_key_readable_by_others"]
