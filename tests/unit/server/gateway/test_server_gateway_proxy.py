"""The proxy on real sockets, before an upstream on loopback, asked by the real `openai` package."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from pydantic import ValidationError
from starlette.types import Message, Receive, Scope, Send
from support.toy_ranker import publish

from rankserve.server.gateway.proxy import Proxy, ProxySettings, is_news
from rankserve.server.http_server import HttpServer
from rankserve.server.scheduling.engine_priority import engine_priority

CHUNKS = [
    b'data: {"id":"c","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":"on',
    b'e ","finish_reason":null,"logprobs":null}]}\n\n: a comment\n\n',
    b'data: {"id":"c","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":"two",'
    b'"finish_reason":"stop","logprobs":null}]}\n\ndata: [DONE]\n\n',
]
Answer = Callable[[Scope, bytes, Send], Awaitable[None]]


@dataclass(slots=True)
class Asked:
    scope: Scope
    body: bytes

    @property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.body)
        return fields

    def header(self, name: bytes) -> list[bytes]:
        return [value for given, value in self.scope["headers"] if given == name]


@dataclass(slots=True)
class Upstream:
    """Keeps what it is asked; `answer` says what it does then."""

    answer: Answer
    asked: list[Asked] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message: Message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        self.asked.append(Asked(scope, body))
        answering = asyncio.ensure_future(self.answer(scope, body, send))
        leaving = asyncio.ensure_future(receive())
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            self.left.set()
            answering.cancel()
        leaving.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


async def begin(send: Send, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def give(send: Send, body: bytes, more: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def stream_all(scope: Scope, body: bytes, send: Send) -> None:
    await begin(send, 200, (b"content-type", b"text/event-stream"), (b"x-request-id", b"r1"))
    for chunk in CHUNKS:
        await give(send, chunk, more=True)
        await asyncio.sleep(0.01)
    await give(send, b"")


async def stream_without_end(scope: Scope, body: bytes, send: Send) -> None:
    await begin(send, 200, (b"content-type", b"text/event-stream"))
    while True:
        await give(send, b"data: {}\n\n", more=True)
        await asyncio.sleep(0.01)


async def think(scope: Scope, body: bytes, send: Send) -> None:
    await asyncio.sleep(60)


async def refuse(scope: Scope, body: bytes, send: Send) -> None:
    error = b'{ "error": {"message": "no such model", "code": "model_not_found"} }'
    await begin(send, 404, (b"content-type", b"application/json"), (b"retry-after", b"3"))
    await give(send, error)


async def answer_ok(scope: Scope, body: bytes, send: Send) -> None:
    await begin(
        send,
        200,
        (b"content-type", b"text/plain"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"connection", b"x-hop"),
        (b"x-hop", b"1"),
        (b"content-encoding", b"gzip"),
    )
    await give(send, b"not really gzip")


@asynccontextmanager
async def serving(application: Any) -> AsyncIterator[str]:
    server = HttpServer(application, "127.0.0.1", 0)
    server.config.timeout_graceful_shutdown = 1
    server.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.aclose()


@asynccontextmanager
async def quiet_uvicorn() -> AsyncIterator[None]:
    logger = logging.getLogger("uvicorn.error")
    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)


@asynccontextmanager
async def proxied(
    upstream: Any, repository: Path | None = None, path: str = "", **fields: Any
) -> AsyncIterator[str]:
    """The proxy's address."""
    policy = {"policy": "fcfs"} if repository is None else {"policy": "ranking", "repository": repository}
    async with serving(upstream) as address:
        proxy = Proxy(ProxySettings(upstream=address + path, **policy, **fields))
        await proxy.start()
        try:
            async with serving(proxy) as front:
                yield front
        finally:
            await proxy.aclose()


async def ask(address: str, request: bytes) -> bytes:
    """The whole answer to a request as it is on the wire."""
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx2.URL(address).port)
    writer.write(request)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


def client(address: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0)


async def test_a_stream_through_the_proxy_with_the_openai_package(tmp_path: Path) -> None:
    publish(tmp_path)
    upstream = Upstream(stream_all)
    async with proxied(upstream, tmp_path) as address, client(address) as openai_client:
        stream = await openai_client.completions.create(
            model="m", prompt="one two", stream=True, extra_body={"priority": -5, "top_k": 3}
        )
        text = "".join([chunk.choices[0].text async for chunk in stream])
    assert text == "one two"
    (asked,) = upstream.asked
    assert asked.fields["priority"] == engine_priority(0, 3.0, lower_first=True)
    assert (asked.fields["top_k"], asked.fields["prompt"]) == (3, "one two")
    assert asked.header(b"authorization") == [b"Bearer secret"]
    assert asked.scope["path"] == "/v1/completions"


async def test_the_higher_priority_for_engines_that_serve_it_first(tmp_path: Path) -> None:
    publish(tmp_path)
    upstream = Upstream(refuse)
    body = {"messages": [{"role": "user", "content": "one two"}]}
    front = proxied(upstream, tmp_path, engine_priority="higher-first")
    async with front as address, httpx2.AsyncClient() as http:
        await http.post(f"{address}/v1/chat/completions", json=body)
    assert upstream.asked[0].fields["priority"] == -engine_priority(0, 3.0, lower_first=True)


async def test_events_pass_byte_for_byte_and_at_once() -> None:
    gate = asyncio.Event()

    async def wait_between(scope: Scope, body: bytes, send: Send) -> None:
        await begin(send, 200, (b"content-type", b"text/event-stream"))
        await give(send, CHUNKS[0], more=True)
        await gate.wait()
        await give(send, CHUNKS[1] + CHUNKS[2], more=True)
        await give(send, b"")

    async with proxied(Upstream(wait_between)) as address, httpx2.AsyncClient() as http:
        request = http.build_request("POST", f"{address}/v1/completions", json={"prompt": "x"})
        response = await http.send(request, stream=True)
        raw = response.aiter_raw()
        assert await anext(raw) == CHUNKS[0]
        gate.set()
        rest = b"".join([chunk async for chunk in raw])
    assert rest == CHUNKS[1] + CHUNKS[2]
    assert response.headers["content-type"] == "text/event-stream"


async def test_errors_of_the_engine_are_unchanged() -> None:
    async with proxied(Upstream(refuse)) as address, httpx2.AsyncClient() as http:
        response = await http.post(f"{address}/v1/completions", json={"prompt": "x"})
        assert response.status_code == 404
        assert response.content.startswith(b'{ "error": ')
        assert response.headers["retry-after"] == "3"
        with pytest.raises(openai.NotFoundError, match="no such model"):
            await client(address).completions.create(model="m", prompt="x")


async def test_headers_of_the_connection_stay_and_all_others_pass() -> None:
    upstream = Upstream(answer_ok)
    async with proxied(upstream, path="/base") as address, httpx2.AsyncClient() as http:
        request = http.build_request(
            "GET",
            f"{address}/v1/models%2Fx?a=b%20c",
            headers=[
                ("connection", "keep-alive, x-mine"),
                ("x-mine", "1"),
                ("te", "trailers"),
                ("x-a", "1"),
                ("x-a", "2"),
            ],
        )
        response = await http.send(request, stream=True)
        assert b"".join([chunk async for chunk in response.aiter_raw()]) == b"not really gzip"
    (asked,) = upstream.asked
    assert (asked.scope["raw_path"], asked.scope["query_string"]) == (b"/base/v1/models%2Fx", b"a=b%20c")
    assert asked.header(b"x-a") == [b"1", b"2"]
    assert not asked.header(b"x-mine")
    assert not asked.header(b"te")
    assert asked.header(b"host") != [httpx2.URL(address).netloc]
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert "x-hop" not in response.headers


@pytest.mark.parametrize(
    "target", [b'/a%2Fb//c/%7Ed~?q="%20', b"/a/...?x=/../y", b"/%61:b;c=1", b"/v1/models?a=b?c", b"/"]
)
async def test_targets_arrive_as_they_came(target: bytes) -> None:
    upstream = Upstream(refuse)
    async with proxied(upstream, path="/base") as address:
        await ask(address, b"GET " + target + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    (asked,) = upstream.asked
    path, _, query = target.partition(b"?")
    assert (asked.scope["raw_path"], asked.scope["query_string"]) == (b"/base" + path, query)


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/completions/x/..",
        b"/v1/completions/.",
        b"/v1/completions/%2e",
        b"/v1/completions/x/.%2E?a=b",
        b"/v1/completions/x%2f..",
        b"/../v1/completions",
        b"*",
        b"http://x/v1/completions",
        b"/a#b",
        b"@evil/v1",
    ],
)
async def test_what_is_no_plain_path_is_refused(target: bytes) -> None:
    upstream = Upstream(refuse)
    head = b"POST " + target + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 15\r\n\r\n"
    async with proxied(upstream) as address:
        answer = await ask(address, head + b'{"priority":-7}')
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"invalid_path" in answer
    assert not upstream.asked


@pytest.mark.parametrize("path", ["/v1/files", "/v1/completions"])
async def test_a_body_that_does_not_arrive_is_refused(path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"
    async with proxied(Upstream(refuse), body_timeout_s=0.1) as address:
        answer = await ask(address, head.encode() + b'{"pro')
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_body_just_within_the_limit_passes_with_what_is_written_into_it() -> None:
    upstream = Upstream(refuse)
    body = json.dumps({"prompt": "\u00e9" * 1000, "priority": 5}, ensure_ascii=False).encode()
    async with proxied(upstream, max_body_bytes=len(body)) as address, httpx2.AsyncClient() as http:
        assert (await http.post(f"{address}/v1/completions", content=body)).status_code == 404
    assert len(upstream.asked[0].body) > len(body)


async def test_bodies_of_other_paths_pass_unread() -> None:
    upstream = Upstream(refuse)

    async def pieces() -> AsyncIterator[bytes]:
        for n in range(5):
            yield bytes([n]) * 1000

    async with proxied(upstream, max_body_bytes=5000) as address, httpx2.AsyncClient() as http:
        response = await http.post(f"{address}/v1/files", content=pieces())
        assert response.status_code == 404
        assert upstream.asked[0].body == b"".join(bytes([n]) * 1000 for n in range(5))
        response = await http.post(f"{address}/v1/files", content=b"x" * 5001)
        assert response.status_code == 413
        response = await http.post(f"{address}/v1/completions", content=b"x" * 5001)
        assert response.status_code == 413
    assert len(upstream.asked) == 1


@pytest.mark.parametrize("answer", [stream_without_end, think])
async def test_the_engine_is_told_when_the_client_leaves(answer: Answer) -> None:
    upstream = Upstream(answer)
    async with proxied(upstream) as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx2.URL(address).port)
        body = b'{"prompt": "x", "stream": true}'
        head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        while not upstream.asked:
            await asyncio.sleep(0.01)
        if answer is stream_without_end:
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        async with asyncio.timeout(5):
            await upstream.left.wait()
        async with httpx2.AsyncClient() as http:
            assert (await http.get(f"{address}/rankserve/health")).json()["open_requests"] == 0


async def test_the_client_is_told_when_the_engine_breaks_off(caplog: pytest.LogCaptureFixture) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    async with await asyncio.start_server(cut, "127.0.0.1", 0) as engine:
        port = engine.sockets[0].getsockname()[1]
        proxy = Proxy(ProxySettings(upstream=f"http://127.0.0.1:{port}", policy="fcfs"))
        async with quiet_uvicorn(), serving(proxy) as address, httpx2.AsyncClient() as http:
            request = http.build_request("POST", f"{address}/v1/completions", json={"prompt": "x"})
            raw = (await http.send(request, stream=True)).aiter_raw()
            assert await anext(raw) == b"data:"
            with pytest.raises(httpx2.RemoteProtocolError):
                await anext(raw)
        await proxy.aclose()
    assert not [record for record in caplog.records if record.name == "uvicorn.error"]


async def test_answers_that_a_drain_cuts_off_leave_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async with quiet_uvicorn(), httpx2.AsyncClient() as http:
        async with proxied(Upstream(stream_without_end)) as address:
            request = http.build_request("POST", f"{address}/v1/completions", json={"prompt": "x"})
            raw = (await http.send(request, stream=True)).aiter_raw()
            await anext(raw)
        with pytest.raises(httpx2.RemoteProtocolError):
            [chunk async for chunk in raw]
    said = [record.getMessage() for record in caplog.records if record.name == "uvicorn.error"]
    assert {line.partition(" running")[0] for line in said} == {"Cancel 1"}


async def test_an_engine_that_breaks_off_before_its_answer_gives_502() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with await asyncio.start_server(cut, "127.0.0.1", 0) as engine:
        port = engine.sockets[0].getsockname()[1]
        proxy = Proxy(ProxySettings(upstream=f"http://127.0.0.1:{port}", policy="fcfs"))
        async with serving(proxy) as address, httpx2.AsyncClient() as http:
            response = await http.post(f"{address}/v1/completions", json={"prompt": "x"})
        await proxy.aclose()
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_broke_off"
    assert "broke off" in response.json()["error"]["message"]


async def test_an_engine_that_is_not_there_gives_502() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    proxy = Proxy(ProxySettings(upstream=f"http://127.0.0.1:{port}", policy="fcfs"))
    async with serving(proxy) as address, client(address) as openai_client, httpx2.AsyncClient() as http:
        with pytest.raises(openai.InternalServerError) as failed:
            await openai_client.completions.create(model="m", prompt="x")
        assert failed.value.status_code == 502
        assert failed.value.code == "upstream_unreachable"
        assert str(port) not in str(failed.value)
        metrics = (await http.get(f"{address}/rankserve/metrics")).text
        assert "rankserve_proxy_unreachable_total 1.0" in metrics
    await proxy.aclose()


async def test_an_engine_that_is_silent_gives_504() -> None:
    async with proxied(Upstream(think), read_timeout_s=0.1) as address, httpx2.AsyncClient() as http:
        response = await http.post(f"{address}/v1/completions", json={"prompt": "x"})
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "upstream_timeout"


async def test_health_and_metrics_of_its_own_and_of_the_engine(tmp_path: Path) -> None:
    publish(tmp_path)
    upstream = Upstream(refuse)
    async with proxied(upstream, tmp_path) as address, httpx2.AsyncClient() as http:
        health = (await http.get(f"{address}/rankserve/health")).json()
        assert health == {
            "status": "serving",
            "policy": "ranking",
            "ranker_version": "toy/1",
            "open_requests": 0,
        }
        await http.post(f"{address}/v1/completions", json={"prompt": "one"})
        metrics = (await http.get(f"{address}/rankserve/metrics")).text
        assert "rankserve_proxy_scored_total 1.0" in metrics
        for path in ("/health", "/metrics"):
            assert (await http.get(address + path)).status_code == 404
    assert [asked.scope["path"] for asked in upstream.asked[1:]] == ["/health", "/metrics"]


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_the_upstream_may_be_given_with_v1_or_without(ending: str) -> None:
    assert ProxySettings(upstream=f"http://x:8000/base{ending}").upstream == "http://x:8000/base"


@pytest.mark.parametrize(
    "upstream", ["", "127.0.0.1:8000", "ftp://x", "http://", "http://x?a=b", "http://x#a", "http://u:p@x"]
)
def test_what_is_no_address_is_refused(upstream: str) -> None:
    with pytest.raises(ValidationError, match="must be an address"):
        ProxySettings(upstream=upstream)


async def test_nothing_of_a_request_is_logged(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    publish(tmp_path)
    caplog.set_level("DEBUG", logger="rankserve")
    async with proxied(Upstream(stream_all), tmp_path) as address, client(address) as openai_client:
        await openai_client.completions.with_raw_response.create(model="m", prompt="one marker", stream=True)
    assert "marker" not in caplog.text
    assert "secret" not in caplog.text
