"""What handlers see of their caller, and how many calls may be open, on a server in this process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from structlog.testing import capture_logs
from support import raw_http2
from support.messages import reason, rich_status
from support.server_process import CHANNEL_OPTIONS

from rankserve.server.access.principal import (
    ANYBODY,
    NOBODY,
    Principal,
    Role,
    current_principal,
    set_current_principal,
)
from rankserve.server.access.tokens import TokenStore
from rankserve.server.errors import TooManyStreams
from rankserve.server.rpc.grpc_server import make_server
from rankserve.server.rpc.interceptors.caller import CallerInterceptor
from rankserve.server.rpc.interceptors.malformed import MalformedMessageInterceptor
from rankserve.server.rpc.interceptors.open_streams import OpenStreams, OpenStreamsInterceptor

ONE, TWO = "the-first-of-the-tokens", "the-second-of-the-tokens"
SERVICE = "rankserve.v1.SchedulerService"


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def name_in_a_while() -> bytes:
    """The caller's name as seen after waits and in a task of the handler's own."""
    name = current_principal().name
    await asyncio.sleep(0.01)

    async def in_a_task() -> str:
        await asyncio.sleep(0.01)
        return current_principal().name

    assert await asyncio.create_task(in_a_task()) == name == current_principal().name
    return name.encode()


async def unary(request: bytes, context: Any) -> bytes:
    return await name_in_a_while()


async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for _ in range(3):
        yield await name_in_a_while()


async def multiplexed(requests: Any, context: Any) -> AsyncIterator[bytes]:
    async for _ in requests:
        yield await name_in_a_while()


async def writing(request: bytes, context: Any) -> None:
    for _ in range(3):
        await context.write(await name_in_a_while())


HANDLERS = {
    "GetStats": grpc.unary_unary_rpc_method_handler(unary, bytes, bytes),
    "Generate": grpc.unary_stream_rpc_method_handler(stream, bytes, bytes),
    "WatchStats": grpc.unary_stream_rpc_method_handler(writing, bytes, bytes),
    "Submit": grpc.stream_stream_rpc_method_handler(multiplexed, bytes, bytes),
}


@pytest.fixture
def tokens(tmp_path: Path) -> TokenStore:
    path = tmp_path / "tokens.toml"
    path.write_text(
        f'[[token]]\nname = "one"\ntoken = "{ONE}"\nroles = ["submit"]\n'
        f'[[token]]\nname = "two"\ntoken = "{TWO}"\nroles = ["submit"]\n'
    )
    return TokenStore(path)


@asynccontextmanager
async def serving(
    tokens: TokenStore | None, streams: OpenStreams, service: str = SERVICE
) -> AsyncIterator[tuple[str, grpc.aio.Channel]]:
    interceptors = [CallerInterceptor(tokens), OpenStreamsInterceptor(streams), MalformedMessageInterceptor()]
    server = make_server(tokens, interceptors, ())
    server.add_registered_method_handlers(service, HANDLERS)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        yield address, channel
    await server.stop(0)


Call = Callable[[grpc.aio.Channel, str], Any]


async def call_unary(channel: grpc.aio.Channel, token: str) -> set[bytes]:
    method: Any = channel.unary_unary(f"/{SERVICE}/GetStats")
    return {await method(b"", metadata=bearer(token))}


async def call_stream(channel: grpc.aio.Channel, token: str, name: str = "Generate") -> set[bytes]:
    method: Any = channel.unary_stream(f"/{SERVICE}/{name}")
    return {answer async for answer in method(b"", metadata=bearer(token))}


async def call_writing(channel: grpc.aio.Channel, token: str) -> set[bytes]:
    return await call_stream(channel, token, "WatchStats")


async def call_multiplexed(channel: grpc.aio.Channel, token: str) -> set[bytes]:
    method: Any = channel.stream_stream(f"/{SERVICE}/Submit")
    return {answer async for answer in method(iter([b""] * 3), metadata=bearer(token))}


@pytest.mark.parametrize("call", [call_unary, call_stream, call_writing, call_multiplexed])
async def test_every_kind_of_handler_sees_its_own_caller(tokens: TokenStore, call: Call) -> None:
    streams = OpenStreams(100, 100)
    async with serving(tokens, streams) as (_, channel):
        names = await asyncio.gather(*(call(channel, token) for token in (ONE, TWO) * 10))
    assert names == [{b"one"}, {b"two"}] * 10
    assert streams.total == 0
    assert current_principal() is ANYBODY


@pytest.mark.parametrize("call", [call_unary, call_stream, call_multiplexed])
async def test_without_tokens_everybody_is_anybody(call: Call) -> None:
    async with serving(None, OpenStreams(100, 1)) as (_, channel):
        assert await asyncio.gather(*(call(channel, "whatever") for _ in range(5))) == [{b"anybody"}] * 5


def hold(streams: OpenStreams, principal: Principal, count: int) -> None:
    """Opens calls that stay open."""
    set_current_principal(principal)
    for _ in range(count):
        # Kept alive by the test's list of what it opened.
        held = streams.hold()
        held.__enter__()
        OPENED.append(held)


OPENED: list[Any] = []


@pytest.fixture(autouse=True)
def as_anybody() -> Any:
    yield
    OPENED.clear()
    set_current_principal(ANYBODY)


def somebody(name: str) -> Principal:
    return Principal(name, frozenset({Role.SUBMIT}))


def test_one_caller_cannot_hold_every_stream() -> None:
    streams = OpenStreams(10, 6)
    hold(streams, somebody("one"), 6)
    with pytest.raises(TooManyStreams, match="6 calls of this caller"):
        hold(streams, somebody("one"), 1)
    hold(streams, somebody("two"), 4)
    with pytest.raises(TooManyStreams, match="10 calls of this server"):
        hold(streams, somebody("two"), 1)
    OPENED.pop().__exit__(None, None, None)
    hold(streams, somebody("three"), 1)
    assert streams.total == 10


def test_who_needs_no_token_takes_no_place_of_who_has_one() -> None:
    streams = OpenStreams(10, 6)
    hold(streams, NOBODY, 6)
    with pytest.raises(TooManyStreams):
        hold(streams, NOBODY, 1)
    assert streams.total == 0
    hold(streams, somebody("one"), 6)


def test_callers_that_cannot_be_told_apart_share_the_whole() -> None:
    streams = OpenStreams(10, 6)
    hold(streams, ANYBODY, 10)
    with pytest.raises(TooManyStreams):
        hold(streams, ANYBODY, 1)


async def test_a_call_beyond_the_limit_is_refused_and_an_ended_one_makes_room(tokens: TokenStore) -> None:
    streams = OpenStreams(5, 2)
    async with serving(tokens, streams) as (_, channel):
        method: Any = channel.stream_stream(f"/{SERVICE}/Submit")
        open_calls = [method(metadata=bearer(ONE)) for _ in range(2)]
        for call in open_calls:
            await call.write(b"")
            assert await call.read() == b"one"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call_stream(channel, ONE)
        assert refused.value.code() is StatusCode.RESOURCE_EXHAUSTED
        assert reason(rich_status(refused.value)) == "TOO_MANY_STREAMS"
        assert await call_unary(channel, ONE) == {b"one"}
        assert await call_stream(channel, TWO) == {b"two"}
        open_calls[0].cancel()
        async with asyncio.timeout(20):
            while streams.total > 1:
                await asyncio.sleep(0.01)
        assert await call_stream(channel, ONE) == {b"one"}


async def test_a_stream_whose_request_does_not_come_counts(tokens: TokenStore) -> None:
    streams = OpenStreams(5, 1)
    async with serving(tokens, streams) as (address, channel):
        host, _, port = address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        path = f"/{SERVICE}/Generate".encode()
        writer.write(
            raw_http2.opening() + raw_http2.headers(path, [(b"authorization", b"Bearer " + ONE.encode())])
        )
        async with asyncio.timeout(20):
            while streams.total == 0:
                await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError):
            await call_stream(channel, ONE)
        writer.close()
        async with asyncio.timeout(20):
            while streams.total:
                await asyncio.sleep(0.01)
        assert await call_stream(channel, ONE) == {b"one"}


@pytest.mark.parametrize(
    "path", [b"/\xff\xfe", b"/rankserve.v1.SchedulerService/\xc3", b"\xff", b"", b"/" * 2000]
)
async def test_a_method_with_an_impossible_name_ends_its_call_alone(tokens: TokenStore, path: bytes) -> None:
    async with serving(tokens, OpenStreams(5, 1)) as (address, channel):
        for metadata, status in (
            ((), StatusCode.UNAUTHENTICATED),
            ([(b"authorization", b"Bearer " + ONE.encode())], StatusCode.UNIMPLEMENTED),
        ):
            assert await raw_http2.grpc_status(address, path, metadata) == status.value[0]
        assert await call_unary(channel, ONE) == {b"one"}


async def test_a_method_that_nobody_gave_a_role_is_for_administrators(tokens: TokenStore) -> None:
    async with serving(tokens, OpenStreams(5, 1), "new.Service") as (_, channel):
        method: Any = channel.unary_unary("/new.Service/GetStats")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(b"", metadata=bearer(ONE))
        assert refused.value.code() is StatusCode.PERMISSION_DENIED
        assert reason(rich_status(refused.value)) == "NOT_PERMITTED"


async def test_refused_calls_are_logged_once_a_minute_and_kind_without_their_token(
    tokens: TokenStore,
) -> None:
    with capture_logs() as logs:
        async with serving(tokens, OpenStreams(5, 1), "new.Service") as (_, channel):
            method: Any = channel.unary_unary("/new.Service/GetStats")
            for token in (ONE, "wrong-" + ONE) * 5:
                with pytest.raises(grpc.aio.AioRpcError):
                    await method(b"", metadata=bearer(token))
    permitted, authenticated = logs
    assert (permitted["kind"], permitted["caller"]) == ("NotPermitted", "one")
    assert authenticated["kind"] == "NotAuthenticated"
    for line in logs:
        assert line["event"] == "call_refused"
        assert line["peer"].startswith("ipv4:127.0.0.1:")
    assert ONE not in repr(logs)
