"""Connections that would otherwise be held for ever, on real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from rankserve.server import http_server
from rankserve.server.http_server import HttpServer

CHUNK = b"x" * 65_536


class Application:
    """Streams until its client is gone, or says hello."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.starlette = Starlette(
            routes=[Route("/endless", self.endless), Route("/hello", self.hello, methods=["GET", "POST"])]
        )

    async def endless(self, request: Request) -> StreamingResponse:
        return StreamingResponse(self._chunks())

    async def hello(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    async def _chunks(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield CHUNK
                await asyncio.sleep(0.001)
        finally:
            self.ended.set()


@asynccontextmanager
async def serving(application: Application, slow_client_s: float) -> AsyncIterator[tuple[int, list[str]]]:
    """Its port, and what it counted."""
    cut: list[str] = []
    server = HttpServer(
        application.starlette,
        "127.0.0.1",
        0,
        slow_client_s=slow_client_s,
        on_slow_client=lambda: cut.append("cut"),
    )
    server.start()
    try:
        yield server.port, cut
    finally:
        await server.aclose()


async def connect(port: int, path: str) -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    if path:
        await ask(client, path)
    return client


async def ask(client: socket.socket, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(client, request.encode())


async def read_to_the_end(client: socket.socket) -> None:
    with suppress(ConnectionResetError):
        while await asyncio.get_running_loop().sock_recv(client, 1 << 20):
            pass


async def test_a_client_that_reads_nothing_is_cut() -> None:
    application = Application()
    async with serving(application, slow_client_s=0.2) as (port, cut):
        client = await connect(port, "/endless")
        await asyncio.wait_for(application.ended.wait(), 30)
        assert cut == ["cut"]
        await read_to_the_end(client)
        client.close()


async def test_a_client_that_reads_is_not_cut() -> None:
    application = Application()
    async with serving(application, slow_client_s=5) as (port, cut):
        client = await connect(port, "/endless")
        received = 0
        while received < 20_000_000:
            received += len(await asyncio.get_running_loop().sock_recv(client, 1 << 20))
        client.close()
        await asyncio.wait_for(application.ended.wait(), 30)
        assert cut == []


async def test_a_client_that_asks_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_FIRST_REQUEST_S", 0.1)
    async with serving(Application(), slow_client_s=5) as (port, _):
        client = await connect(port, "")
        await asyncio.wait_for(read_to_the_end(client), 30)
        client.close()


async def test_one_that_has_asked_may_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_FIRST_REQUEST_S", 0.1)
    async with serving(Application(), slow_client_s=5) as (port, _):
        loop = asyncio.get_running_loop()
        client = await connect(port, "/hello")
        assert b"hello" in await loop.sock_recv(client, 1 << 16)
        await asyncio.sleep(0.3)
        await ask(client, "/hello")
        assert b"hello" in await loop.sock_recv(client, 1 << 16)
        client.close()


async def test_what_is_written_is_sent_at_once() -> None:
    """An event of a stream must not wait for the acknowledgement of the one before."""
    application = Application()
    delays: list[int] = []

    class Spy(http_server.HttpConnection):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            accepted = transport.get_extra_info("socket")
            delays.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    server = HttpServer(application.starlette, "127.0.0.1", 0)
    server.config.http = Spy
    server.start()
    client = await connect(server.port, "/hello")
    assert b"200 OK" in await asyncio.get_running_loop().sock_recv(client, 1 << 16)
    client.close()
    await server.aclose()
    assert delays == [1]


async def test_a_body_that_goes_wrong_is_answered_once(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Application(), slow_client_s=5) as (port, _):
        for broken in (b"no chunk\r\n", b"-1\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /hello HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + broken)
            answer = await reader.read()
            writer.close()
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert answer.count(b"HTTP/1.1") == 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
