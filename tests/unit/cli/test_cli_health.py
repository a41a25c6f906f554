"""`rankserve health` against servers that speak the health protocol."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from typer.testing import CliRunner, Result

if TYPE_CHECKING:
    import trustme
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc
else:
    trustme = pytest.importorskip("trustme")
    health = pytest.importorskip("grpc_health.v1.health")
    from grpc_health.v1 import health_pb2, health_pb2_grpc

from rankserve.cli.main import app

SERVICE = "rankserve.v1.SchedulerService"


@pytest.fixture
def servicer() -> health.HealthServicer:
    """Says SERVING until a test has it say otherwise."""
    servicer = health.HealthServicer()
    for name in ("", SERVICE):
        servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    return servicer


@pytest.fixture
def server(servicer: health.HealthServicer) -> Iterator[grpc.Server]:
    """Not started, and without a port."""
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    yield server
    server.stop(None).wait()


@pytest.fixture
def address(server: grpc.Server) -> str:
    """Of the server, without TLS."""
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return f"127.0.0.1:{port}"


def run_health(address: str, *options: str) -> Result:
    return CliRunner().invoke(app, ["health", "--address", address, *options])


def test_a_serving_server_is_healthy(address: str) -> None:
    for options in ((), ("--service", SERVICE)):
        result = run_health(address, *options)
        assert (result.exit_code, result.stdout) == (0, "SERVING\n")


@pytest.mark.parametrize("status", ["NOT_SERVING", "UNKNOWN"])
def test_any_other_answer_is_not(address: str, servicer: health.HealthServicer, status: str) -> None:
    servicer.set("", getattr(health_pb2.HealthCheckResponse, status))
    result = run_health(address)
    assert (result.exit_code, result.stdout) == (1, f"{status}\n")


def test_an_unknown_service_is_not_healthy(address: str) -> None:
    result = run_health(address, "--service", "another.Service")
    assert result.exit_code == 1
    assert "NOT_FOUND" in result.stderr


def test_a_server_that_is_not_there_is_not_healthy(address: str, server: grpc.Server) -> None:
    server.stop(None).wait()
    result = run_health(address)
    assert result.exit_code == 1
    assert f"{address}: UNAVAILABLE" in result.stderr


def test_a_server_that_says_nothing_is_not_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        result = run_health(f"127.0.0.1:{listener.getsockname()[1]}", "--timeout-s", "0.2")
    assert result.exit_code == 1
    assert "no answer in time" in result.stderr


def test_mutual_tls(server: grpc.Server, tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    own, theirs = ca.issue_cert("probe@example.org"), ca.issue_cert("rankserve.example")
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    own.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    pair = (theirs.private_key_pem.bytes(), theirs.cert_chain_pems[0].bytes())
    credentials = grpc.ssl_server_credentials([pair], ca.cert_pem.bytes(), require_client_auth=True)
    address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    trusting = ("--tls-ca", str(tmp_path / "ca.pem"), "--tls-server-name", "rankserve.example")
    shown = ("--tls-certificate", str(tmp_path / "certificate.pem"), "--tls-key", str(tmp_path / "key.pem"))
    assert run_health(address, *trusting, *shown).exit_code == 0
    assert run_health(address, *trusting).exit_code == 1
    assert run_health(address).exit_code == 1


def test_files_that_make_no_sense_are_refused_with_a_reason(tmp_path: Path) -> None:
    for options, reason in (
        (("--tls-key", "key.pem"), "need --tls-ca"),
        (("--tls-ca", str(tmp_path / "none.pem")), "none.pem"),
        (("--tls-ca", str(tmp_path), "--tls-key", "key.pem"), "need each other"),
    ):
        result = run_health("127.0.0.1:1", *options)
        assert result.exit_code == 1
        assert reason in result.stderr
        assert "Traceback" not in result.stderr
