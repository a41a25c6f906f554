"""Certificates for tests, as files and as gRPC credentials."""

from pathlib import Path

import grpc
import trustme


class Authority:
    """A CA that signs certificates for servers on 127.0.0.1 and for clients."""

    def __init__(self) -> None:
        self.ca = trustme.CA()

    def issue(self, folder: Path) -> tuple[Path, Path]:
        """A new certificate and key as files, each put there whole."""
        folder.mkdir(parents=True, exist_ok=True)
        certificate = self.ca.issue_cert("127.0.0.1")
        chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
        return (
            _put(folder / "certificate.pem", chain),
            _put(folder / "key.pem", certificate.private_key_pem.bytes()),
        )

    def write_ca(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return _put(folder / "ca.pem", self.ca.cert_pem.bytes())

    def credentials(self, client: "Authority | None" = None) -> grpc.ChannelCredentials:
        """Of a client that trusts this authority, with a certificate of `client` where one is given."""
        if client is None:
            return grpc.ssl_channel_credentials(self.ca.cert_pem.bytes())
        mine = client.ca.issue_cert("client@example.org")
        chain = b"".join(pem.bytes() for pem in mine.cert_chain_pems)
        return grpc.ssl_channel_credentials(self.ca.cert_pem.bytes(), mine.private_key_pem.bytes(), chain)


def _put(path: Path, content: bytes) -> Path:
    beside = path.with_suffix(".new")
    beside.write_bytes(content)
    beside.chmod(0o600)
    return beside.rename(path)
