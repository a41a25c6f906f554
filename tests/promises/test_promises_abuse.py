"""Promise: no bytes on a port make the server fail: no crash, no INTERNAL or UNKNOWN, no HTTP 500.

50,000 fuzzed messages and more, and raw bytes beside; about 3,000 in the short form. What is sent follows
from SEED and a number, which every failure names together with the bytes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from support import raw_http2
from support.abused_rpcs import ALLOWED, METHODS, Caller, good_message
from support.abusive_bytes import byte_by_byte, no_grpc, open_and_drop, send_bytes
from support.abusive_http import fuzzed_request, statuses
from support.abusive_streams import behaviours
from support.message_fuzz import fuzzed
from support.messages import inference
from support.promises import FULL, note
from support.server_process import Connection, ServerProcess, StartServer
from support.submit_stream import SubmitStream
from support.token_files import ADMIN, OBSERVE, SUBMIT, WRONG, bearer, write_tokens

from rankserve.v1 import admin_pb2
from rankserve.v1 import scheduler_pb2 as pb
from rankserve.v1.admin_pb2_grpc import AdminServiceStub

pytestmark = pytest.mark.timeout(3600 if FULL else 300)

SEED = 5
MESSAGES, CALLERS = 60_000 if FULL else 2600, 16
STOPPING_MESSAGES = 1000 if FULL else 100
METADATA_CALLS = 5000 if FULL else 200
STREAM_ROUNDS = 30 if FULL else 2
CONNECTIONS = 3000 if FULL else 150
HTTP_REQUESTS = 10_000 if FULL else 400
# 500, above all, is not among them. 503 only where too many watch the live page.
HTTP_ALLOWED = {100, 200, 307, 400, 401, 403, 404, 405, 408, 409, 413, 415, 421, 422, 429, 431, 501}
# They stop the server from serving, so that nothing can be said about other calls at the same time.
STOPPING = {"Drain", "Pause"}


@pytest.fixture(scope="module")
def server(start_module_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> ServerProcess:
    tokens: Path = write_tokens(tmp_path_factory.mktemp("tokens") / "tokens.toml", ADMIN, SUBMIT, OBSERVE)
    return start_module_server(
        *("--token-file", str(tokens), "--http-port", "0", "--operations-port", "0"),
        *("--replay", "--time-scale", "100", "--max-sequences", "64", "--default-max-tokens", "8"),
    )


@pytest.fixture
def caller(server: ServerProcess) -> Iterator[Caller]:
    with Caller(server.address) as caller:
        yield caller


@pytest.fixture
async def abused(server: ServerProcess) -> AsyncIterator[Connection]:
    """A connection to the server, which serves as ever after the test, and holds nothing of it."""
    async with Connection(server.address, metadata=bearer(ADMIN)) as connection:
        yield connection
    async with Connection(server.address, metadata=bearer(ADMIN)) as connection:
        assert server.alive, server.stderr
        admin: Any = AdminServiceStub(connection.channel)
        await admin.SetPolicy(admin_pb2.SetPolicyRequest(policy="ranking"), metadata=bearer(ADMIN))
        async with SubmitStream(connection.scheduler, bearer(ADMIN)) as stream:
            request_id = f"after-{monotonic()}"
            await stream.send(inference(request_id))
            assert (await stream.finish()).result(request_id).output_tokens == 3
        stats = await connection.until_idle()
        assert stats.state == pb.SERVER_STATE_SERVING


async def each(
    numbers: range, act: Callable[[int, Random], Awaitable[None]], callers: int = CALLERS
) -> float:
    """Acts once for each number, several at a time; returns how many seconds that took.

    Raises:
        AssertionError: names the number that went wrong, of which all else follows.
    """
    left, started_s = iter(numbers), monotonic()

    async def work() -> None:
        for number in left:
            try:
                await act(number, Random(f"{SEED}-{number}"))
            except Exception as error:
                raise AssertionError(f"seed {SEED}, number {number}: {error}") from error

    await asyncio.gather(*(work() for _ in range(callers)))
    return monotonic() - started_s


def messages_for(draw: Random, method: MethodDescriptor) -> list[bytes]:
    count = draw.choice((1, 1, 2, 5)) if method.client_streaming else 1
    return [fuzzed(draw, method.input_type, good_message(draw, method)) for _ in range(count)]


async def test_no_message_to_any_method_is_a_fault(abused: Connection, caller: Caller) -> None:
    methods = [method for method in METHODS if method.name not in STOPPING]
    sent = 0

    async def act(number: int, draw: Random) -> None:
        nonlocal sent
        method = methods[number % len(methods)]
        token = draw.choice((ADMIN,) * 20 + (SUBMIT, OBSERVE, WRONG, None))
        messages = messages_for(draw, method)
        sent += len(messages)
        await caller.call(method, messages, bearer(token))

    seconds = await each(range(MESSAGES), act)
    note("abuse, messages", sent=sent, methods=len(methods), seconds=round(seconds, 1))
    assert sent >= MESSAGES


async def test_no_message_to_what_stops_the_server_is_a_fault(abused: Connection, caller: Caller) -> None:
    admin: Any = AdminServiceStub(abused.channel)

    async def act(number: int, draw: Random) -> None:
        method = next(m for m in METHODS if m.name == ("Drain", "Pause")[number % 2])
        await caller.call(method, messages_for(draw, method), bearer(ADMIN))
        await admin.Resume(admin_pb2.ResumeRequest(), metadata=bearer(ADMIN))

    seconds = await each(range(STOPPING_MESSAGES), act, callers=1)
    note("abuse, Drain and Pause", sent=STOPPING_MESSAGES, seconds=round(seconds, 1))


# Left out: an `authorization-bin` that is no base64, and a `grpc-timeout` that is no time. gRPC's core
# answers them with INTERNAL before it asks us.
def hostile_metadata(draw: Random) -> tuple[tuple[str, str | bytes], ...]:
    size = draw.choice((0, 1, 100, 8000, 20_000, 200_000))
    one: tuple[str, str | bytes] = draw.choice(
        (
            ("x-text", "v" * size),
            ("x-data-bin", draw.randbytes(size)),
            ("authorization-bin", draw.randbytes(draw.randrange(50))),
            ("x-request-id", "%s ~ !"),
            (
                "traceparent",
                draw.choice(("", "00-0-0-0", "00-" + "f" * 32 + "-" + "f" * 16 + "-ff", "x" * 500)),
            ),
            ("tracestate", "a=" * 1000),
            ("baggage", "a=b,;=" * 500),
            ("authorization", f"Bearer {'x' * size}"),
            ("_.-0", "odd key"),
            ("x" * max(1, size // 10), "long key"),
            ("user-agent", "v" * size),
            ("grpc-previous-rpc-attempts", "999999999999999999999"),
            ("cookie", "v" * size),
        )
    )
    return tuple([one] * draw.choice((1, 1, 2, 100) if size > 1000 else (1, 2, 100, 3000)))


async def test_no_metadata_is_a_fault(abused: Connection, caller: Caller) -> None:
    methods = [method for method in METHODS if method.name not in STOPPING]

    async def act(number: int, draw: Random) -> None:
        method = methods[number % len(methods)]
        metadata: Any = (*bearer(draw.choice((ADMIN, ADMIN, WRONG, None))), *hostile_metadata(draw))
        try:
            await caller.call(method, [good_message(draw, method)], metadata)
        except AssertionError as error:
            raise AssertionError(
                f"{error} and {len(metadata)} entries such as {metadata[-1]!r:.200}"
            ) from error

    seconds = await each(range(METADATA_CALLS), act)
    note("abuse, metadata", calls=METADATA_CALLS, seconds=round(seconds, 1))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"grpc-timeout", b"99999999H"),
        (b"grpc-accept-encoding", b"\xff"),
        (b"traceparent", b"\xff" * 55),
        (b"x-text", b"\xff\xfe"),
        (b"x-data-bin", b""),
        (b"authorization", b"\xff"),
        (b"authorization", b"Bearer \xc3\x28"),
    ],
)
async def test_metadata_that_no_client_library_sends(
    abused: Connection, server: ServerProcess, key: bytes, value: bytes
) -> None:
    right = (b"authorization", f"Bearer {ADMIN}".encode())
    status = await raw_http2.grpc_status(
        server.address, b"/rankserve.v1.SchedulerService/GetStats", [right, (key, value)]
    )
    assert status in {code.value[0] for code in ALLOWED}


async def test_no_way_to_treat_a_stream_is_a_fault(abused: Connection, server: ServerProcess) -> None:
    kinds = behaviours(server.address)

    async def act(number: int, draw: Random) -> None:
        behave = kinds[number % len(kinds)]
        try:
            await behave(abused, draw)
        except grpc.aio.AioRpcError as error:
            raise AssertionError(f"{behave.__name__}: {error}") from error

    seconds = await each(range(STREAM_ROUNDS * len(kinds)), act, callers=8)
    note("abuse, streams", clients=STREAM_ROUNDS * len(kinds), seconds=round(seconds, 1))


async def test_no_bytes_on_the_grpc_port_are_a_fault(abused: Connection, server: ServerProcess) -> None:
    async def act(number: int, draw: Random) -> None:
        data = no_grpc(draw)
        answer = await send_bytes(server.address, data, half_close=draw.random() < 0.3)
        assert b"Traceback" not in answer, data[:400].hex()

    seconds = await each(range(CONNECTIONS), act, callers=32)
    await open_and_drop(server.address, 500)
    slow = raw_http2.opening() + raw_http2.headers(b"/rankserve.v1.SchedulerService/GetStats")
    async with asyncio.TaskGroup() as clients:
        for _ in range(50):
            clients.create_task(byte_by_byte(server.address, slow, seconds=30 if FULL else 2))
        # Meanwhile, others are served.
        for _ in range(20):
            await abused.stats()
    note("abuse, bytes on the gRPC port", connections=CONNECTIONS + 550, seconds=round(seconds, 1))


@pytest.mark.parametrize("port", ["http_address", "operations_address"])
async def test_no_request_on_the_http_ports_is_a_fault(
    abused: Connection, server: ServerProcess, port: str
) -> None:
    address = server.listening[port]
    answered = 0

    async def act(number: int, draw: Random) -> None:
        nonlocal answered
        data = fuzzed_request(draw, draw.choice((ADMIN, ADMIN, ADMIN, SUBMIT, WRONG)))
        answer = await send_bytes(address, data, wait_s=0.5, half_close=draw.random() < 0.1)
        codes = statuses(answer)
        answered += len(codes)
        assert set(codes) <= HTTP_ALLOWED, f"{codes} to {data[:1000]!r}"

    seconds = await each(range(HTTP_REQUESTS), act, callers=32)
    await open_and_drop(address, 300)
    slow = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{"
    async with asyncio.TaskGroup() as clients:
        for _ in range(50):
            clients.create_task(byte_by_byte(address, slow, seconds=30 if FULL else 2))
        for _ in range(20):
            await abused.stats()
    assert answered > HTTP_REQUESTS / 2
    note(f"abuse, {port}", requests=HTTP_REQUESTS, answered=answered, seconds=round(seconds, 1))
