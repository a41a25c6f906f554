"""TLS and mutual TLS."""

from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from rankserve.client import AsyncSchedulerClient, ConnectionFailed, SchedulerClient, TlsConfig
from rankserve.client.testing import FakeServer

if TYPE_CHECKING:
    import trustme
else:
    trustme = pytest.importorskip("trustme")


def credentials(certificate: "trustme.LeafCert", client_ca: bytes | None = None) -> grpc.ServerCredentials:
    pair = (certificate.private_key_pem.bytes(), b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    return grpc.ssl_server_credentials([pair], client_ca, require_client_auth=client_ca is not None)


async def test_both_clients_speak_tls() -> None:
    ca = trustme.CA()
    tls = TlsConfig(root_certificates=ca.cert_pem.bytes())
    with FakeServer(credentials=credentials(ca.issue_cert("127.0.0.1"))) as server:
        async with AsyncSchedulerClient(server.target, tls=tls) as client:
            assert (await client.complete("Hello")).text
        with SchedulerClient(server.target, tls=tls) as sync_client:
            assert sync_client.complete("Hello").text


def test_a_server_nobody_vouches_for_is_not_spoken_to() -> None:
    tls = TlsConfig(root_certificates=trustme.CA().cert_pem.bytes())
    certificate = trustme.CA().issue_cert("127.0.0.1")
    with (
        FakeServer(credentials=credentials(certificate)) as server,
        SchedulerClient(server.target, tls=tls) as client,
    ):
        with pytest.raises(ConnectionFailed):
            client.stats()
        assert server.requests == ()


def test_mutual_tls_from_files(tmp_path: Path) -> None:
    ca = trustme.CA()
    mine = ca.issue_cert("client@example.org")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    mine.private_key_pem.write_to_path(tmp_path / "key.pem")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "chain.pem")
    server_credentials = credentials(ca.issue_cert("rankserve.example"), ca.cert_pem.bytes())
    with FakeServer(credentials=server_credentials) as server:
        files = [tmp_path / name for name in ("ca.pem", "chain.pem", "key.pem")]
        tls = TlsConfig.from_files(*files, server_name="rankserve.example")
        with SchedulerClient(server.target, tls=tls) as client:
            assert client.complete("Hello").text
        stranger = TlsConfig.from_files(tmp_path / "ca.pem", server_name="rankserve.example")
        with SchedulerClient(server.target, tls=stranger) as client, pytest.raises(ConnectionFailed):
            client.stats()
