"""Clients that break off, do not read, send garbage or go wrong in other ways cost nobody else anything."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import pytest
from grpc import StatusCode
from support.messages import answer_text, code, inference, violated_fields
from support.server_process import Connection, ServerProcess, StartServer
from support.submit_stream import History, SubmitStream, submit_without_reading

from rankserve.v1 import scheduler_pb2 as pb


@pytest.fixture(scope="module")
def fast_server(start_module_server: StartServer) -> ServerProcess:
    return start_module_server("--replay", "--time-scale", "50", "--max-sequences", "64")


@pytest.fixture
async def fast(fast_server: ServerProcess) -> AsyncIterator[Connection]:
    """A connection to a fast server, which holds nothing after the test and still serves."""
    async with Connection(fast_server.address) as connection:
        yield connection
        async with SubmitStream(connection.scheduler) as stream:
            request_id = f"after-{random.getrandbits(64):x}"
            await stream.send(inference(request_id))
            assert (await stream.finish()).result(request_id).output_tokens == 3
        await connection.until_idle()


async def test_200_streams_broken_off_at_any_moment_leave_nothing_behind(
    fast: Connection, fast_server: ServerProcess
) -> None:
    draw = random.Random(200)

    async def break_off(connection: Connection, number: int) -> None:
        async with SubmitStream(connection.scheduler) as stream:
            ids = [f"broken-{number}-{n}" for n in range(4)]
            await stream.send(*(inference(request_id, output=4000) for request_id in ids))
            kind = draw.choice(["nothing", "accepted", "queued", "tokens"])
            if kind != "nothing":
                await stream.until(lambda history: bool(history.ids_with[kind]))
            if draw.random() < 0.5:
                await stream.half_close()

    for batch in range(10):
        async with Connection(fast_server.address) as connection:
            await asyncio.gather(*(break_off(connection, 20 * batch + n) for n in range(20)))
    stats = await fast.until_idle()
    assert stats.cancelled_total > 200


async def test_a_client_that_does_not_read_holds_up_nobody(
    fast: Connection, fast_server: ServerProcess
) -> None:
    finished_before = (await fast.stats()).finished_total
    async with Connection(fast_server.address) as other:
        # Results of 6 MB: more than a connection takes in, so the server cannot get rid of them.
        call = await submit_without_reading(other, 1500)
        async with SubmitStream(fast.scheduler) as stream:
            await stream.send(*(inference(f"read-{n}", output=20) for n in range(50)))
            assert len((await stream.finish()).ids_with["finished"]) == 50
        await fast.until_stats(lambda stats: stats.finished_total == finished_before + 1550)
        # Nothing is lost for it, once it reads.
        await call.done_writing()
        history = History()
        async for response in call:
            history.add(response.events)
    history.check()
    assert len(history.ids_with["finished"]) == 1500


async def test_a_stream_without_requests_ends_ok(fast: Connection) -> None:
    async with SubmitStream(fast.scheduler) as stream:
        assert (await stream.finish()).events == []


async def test_a_stream_half_closed_at_once_is_told_everything(fast: Connection) -> None:
    ids = [f"closed-{n}" for n in range(20)]
    async with SubmitStream(fast.scheduler) as stream:
        await stream.send(*(inference(request_id, output=9) for request_id in ids))
        history = await stream.finish()
    assert {history.text(request_id) for request_id in ids} == {answer_text(9)}


async def test_an_empty_request_is_refused(fast: Connection) -> None:
    async with SubmitStream(fast.scheduler) as stream:
        await stream.send(pb.InferenceRequest(), inference("beside-it"))
        history = await stream.finish()
    assert violated_fields(history.failure("").status) == ["id"]
    assert history.result("beside-it").output_tokens == 3


async def test_many_streams_with_the_same_ids_share_the_requests(fast: Connection) -> None:
    ids = [f"same-{n}" for n in range(10)]
    accepted_before = (await fast.stats()).accepted_total
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(SubmitStream(fast.scheduler)) for _ in range(50)]
        await asyncio.gather(
            *(s.send(*(inference(request_id, output=30) for request_id in ids)) for s in streams)
        )
        histories = await asyncio.gather(*(stream.finish() for stream in streams))
    for history in histories:
        assert {history.text(request_id) for request_id in ids} == {answer_text(30)}
    assert (await fast.stats()).accepted_total == accepted_before + len(ids)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 4096,
        random.Random(1).randbytes(65536),
        b"",
    ],
    ids=["HTTP/1.1", "TLS", "broken HTTP/2", "random", "nothing"],
)
async def test_connections_that_speak_no_grpc(
    fast: Connection, fast_server: ServerProcess, data: bytes
) -> None:
    host, port = fast_server.address.rsplit(":", 1)
    for _ in range(20):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(data)
    assert fast_server.alive


async def test_a_client_deadline_on_the_call_cancels_its_requests(fast: Connection) -> None:
    call = fast.scheduler.Generate(
        pb.GenerateRequest(request=inference("impatient", output=8000)), timeout=0.2
    )
    with pytest.raises(grpc.aio.AioRpcError) as late:
        async for _ in call:
            pass
    assert late.value.code() is StatusCode.DEADLINE_EXCEEDED
    await fast.until_idle()
    state = await fast.scheduler.GetRequest(pb.GetRequestRequest(request_id="impatient"))
    assert code(state.failure.status) is StatusCode.CANCELLED


async def test_an_ended_request_is_forgotten_after_thousands_of_others(fast: Connection) -> None:
    async with SubmitStream(fast.scheduler) as stream:
        await stream.send(inference("forgotten", output=1))
        await stream.until_ended("forgotten")
        await stream.send(*(inference(f"later-{n}", output=1, result_only=True) for n in range(5000)))
        await stream.finish()
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await fast.scheduler.GetRequest(pb.GetRequestRequest(request_id="forgotten"))
    assert missing.value.code() is StatusCode.NOT_FOUND
    # Its id is free again, for any body.
    async with SubmitStream(fast.scheduler) as stream:
        await stream.send(inference("forgotten", output=2))
        assert (await stream.finish()).result("forgotten").output_tokens == 2
