"""TLS and mutual TLS, with certificates that are replaced while the server runs."""

import asyncio
import ssl
from pathlib import Path

import grpc
from grpc import StatusCode
from support.messages import inference
from support.server_process import CHANNEL_OPTIONS, Connection, ServerProcess, StartServer
from support.submit_stream import SubmitStream
from support.tls import Authority

from rankserve.client import AsyncSchedulerClient, TlsConfig
from rankserve.v1 import scheduler_pb2 as pb

# A channel of its own for each: gRPC shares connections between channels that are alike.
OWN_CONNECTION = (*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))


def connected(address: str, credentials: grpc.ChannelCredentials) -> Connection:
    return Connection(address, grpc.aio.secure_channel(address, credentials, options=OWN_CONNECTION))


async def answer(address: str, credentials: grpc.ChannelCredentials) -> StatusCode:
    """What one call on a new connection gets."""
    async with connected(address, credentials) as connection:
        try:
            await connection.scheduler.GetStats(pb.GetStatsRequest(), timeout=30)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return StatusCode.OK


def tls_options(folder: Path, authority: Authority) -> list[str]:
    certificate, key = authority.issue(folder)
    return ["--tls-certificate", str(certificate), "--tls-key", str(key)]


async def presented(address: str) -> str:
    host, _, port = address.rpartition(":")
    return await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))


async def until_presented(server: ServerProcess, other_than: str) -> None:
    async with asyncio.timeout(30):
        while await presented(server.address) == other_than:
            await asyncio.sleep(0.05)


async def test_certificates_are_replaced_under_load_without_a_failed_call(
    start_server: StartServer, tmp_path: Path
) -> None:
    authority = Authority()
    server = start_server("--replay", "--time-scale", "10", *tls_options(tmp_path / "tls", authority))
    credentials = authority.credentials()
    stop = asyncio.Event()

    async def new_connections() -> list[StatusCode]:
        codes = []
        while not stop.is_set():
            codes.append(await answer(server.address, credentials))
        return codes

    async def one_connection() -> int:
        async with connected(server.address, credentials) as connection:
            async with SubmitStream(connection.scheduler) as stream:
                count = 0
                while not stop.is_set():
                    await stream.send(inference(f"under-load-{count}", output=5))
                    await stream.until_ended(f"under-load-{count}")
                    count += 1
                history = await stream.finish()
            assert len(history.ids_with["finished"]) == count
            return count

    load = [asyncio.create_task(new_connections()) for _ in range(3)] + [
        asyncio.create_task(one_connection())
    ]
    before = await presented(server.address)
    for _ in range(3):
        authority.issue(tmp_path / "tls")
        await until_presented(server, other_than=before)
        before = await presented(server.address)
    stop.set()
    *codes, streamed = await asyncio.gather(*load)
    for calls in codes:
        assert isinstance(calls, list)
        assert set(calls) == {StatusCode.OK}
    assert streamed


async def test_a_broken_pair_leaves_the_one_before(start_server: StartServer, tmp_path: Path) -> None:
    authority = Authority()
    server = start_server(*tls_options(tmp_path, authority))
    before = await presented(server.address)
    Authority().issue(tmp_path / "other")
    (tmp_path / "other" / "key.pem").rename(tmp_path / "key.pem")
    async with asyncio.timeout(30):
        while "certificate_unusable" not in server.stderr:
            await asyncio.sleep(0.05)
    assert "the key belongs to another certificate" in server.stderr
    assert await presented(server.address) == before
    assert await answer(server.address, authority.credentials()) is StatusCode.OK
    authority.issue(tmp_path)
    await until_presented(server, other_than=before)
    assert await answer(server.address, authority.credentials()) is StatusCode.OK


async def test_a_new_client_ca_lets_other_clients_in_and_keeps_the_old_ones_out(
    start_server: StartServer, tmp_path: Path
) -> None:
    authority, theirs, new = Authority(), Authority(), Authority()
    ca = theirs.write_ca(tmp_path / "clients")
    server = start_server("--replay", *tls_options(tmp_path, authority), "--tls-client-ca", str(ca))
    assert await answer(server.address, authority.credentials(theirs)) is StatusCode.OK
    assert await answer(server.address, authority.credentials(new)) is StatusCode.UNAVAILABLE
    # Whoever fails to get in fills no log.
    assert "ssl_transport_security" not in server.stderr
    async with (
        connected(server.address, authority.credentials(theirs)) as old,
        SubmitStream(old.scheduler) as stream,
    ):
        await stream.send(inference("before"))
        await stream.until_ended("before")
        new.write_ca(tmp_path / "clients")
        async with asyncio.timeout(30):
            while await answer(server.address, authority.credentials(new)) is not StatusCode.OK:
                await asyncio.sleep(0.05)
        assert await answer(server.address, authority.credentials(theirs)) is StatusCode.UNAVAILABLE
        # A connection that was let in stays.
        await stream.send(inference("after"))
        assert (await stream.finish()).result("after").output_tokens == 3


async def test_the_client_package_speaks_mutual_tls_with_the_server(
    start_server: StartServer, tmp_path: Path
) -> None:
    authority = Authority()
    ca = authority.write_ca(tmp_path / "clients")
    server = start_server(*tls_options(tmp_path, authority), "--tls-client-ca", str(ca))
    tls = TlsConfig.from_files(ca, *authority.issue(tmp_path / "mine"))
    async with AsyncSchedulerClient(server.address, tls=tls) as client:
        assert (await client.complete("Hello", max_tokens=5)).text
