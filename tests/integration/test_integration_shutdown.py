"""SIGTERM: every open request is told how it ends, streams end OK, the exit status is 0."""

import asyncio
import signal
from contextlib import AsyncExitStack

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.messages import code, inference, reason, rich_status
from support.server_process import SERVICES, Connection, ServerProcess, StartServer
from support.submit_stream import History, SubmitStream, submit_without_reading

from rankserve.v1 import scheduler_pb2 as pb


def assert_drained(history: History, request_id: str) -> None:
    status = history.failure(request_id).status
    assert (code(status), reason(status)) == (StatusCode.UNAVAILABLE, "DRAINING")


async def exit_status(server: ServerProcess) -> int:
    return await asyncio.to_thread(server.stop)


async def test_sigterm_under_load_ends_every_request_and_every_stream(start_server: StartServer) -> None:
    server = start_server("--replay", "--max-sequences", "8", "--time-scale", "5")
    async with Connection(server.address) as connection, AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(SubmitStream(connection.scheduler)) for _ in range(4)]
        for number, stream in enumerate(streams):
            ids = [f"s{number}-{n}" for n in range(150)]
            await stream.send(inference(f"s{number}-long", output=500, priority=-1))
            await stream.send(*(inference(request_id, output=40) for request_id in ids))
            await stream.until_all("queued", ids)
        # Two of the clients have said that they are done, two keep their stream open for more requests.
        for stream in streams[:2]:
            await stream.half_close()
        for number, stream in enumerate(streams):
            await stream.until_all("tokens", [f"s{number}-long"])

        server.send(signal.SIGTERM)
        await streams[3].until(lambda history: bool(history.ids_with["failed"]))
        # It drains. A request that comes now is refused, on a stream as in a call of its own.
        await streams[3].send(inference("too-late"))
        await streams[3].until_ended("too-late")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in connection.scheduler.Generate(pb.GenerateRequest(request=inference("later"))):
                pass
        assert reason(rich_status(refused.value)) == "DRAINING"
        assert refused.value.code() is StatusCode.UNAVAILABLE
        assert await asyncio.gather(*(stream.ended() for stream in streams)) == [StatusCode.OK] * 4

    assert await exit_status(server) == 0
    for number, stream in enumerate(streams):
        history = stream.history
        history.check()
        expected = {f"s{number}-{n}" for n in range(150)} | {f"s{number}-long"}
        assert history.by_id.keys() - {"too-late"} == expected
        # What ran has finished; what waited was sent elsewhere and had no tokens.
        assert f"s{number}-long" in history.ids_with["finished"]
        for request_id in history.ids_with["failed"]:
            assert_drained(history, request_id)
            assert history.tokens(request_id) == 0
    assert sum(len(stream.history.ids_with["failed"]) for stream in streams) > 100


async def test_a_drain_that_takes_too_long_ends_what_still_runs(start_server: StartServer) -> None:
    server = start_server("--replay", "--drain-timeout-s", "0.3")
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(inference("endless", output=8000), inference("short", output=3))
        await stream.until_ended("short")
        server.send(signal.SIGTERM)
        assert await stream.ended() is StatusCode.OK
    stream.history.check()
    assert_drained(stream.history, "endless")
    assert stream.history.failure("endless").output_tokens > 0
    assert await exit_status(server) == 0


async def test_health_gives_notice_before_requests_are_refused(start_server: StartServer) -> None:
    server = start_server("--replay", "--drain-notice-s", "1.5")
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        health = health_pb2_grpc.HealthStub(connection.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        server.send(signal.SIGTERM)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        for service in SERVICES:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        # Callers that have not noticed yet are still served.
        await stream.send(inference("during-notice"))
        assert (await stream.finish()).result("during-notice").output_tokens == 3
    assert await exit_status(server) == 0


async def test_sigint_and_a_second_signal_are_as_good(start_server: StartServer) -> None:
    server = start_server("--replay")
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(inference("running", output=40), *(inference(f"r{n}") for n in range(3)))
        await stream.until_all("tokens", ["running"])
        server.send(signal.SIGINT)
        server.send(signal.SIGTERM)
        assert await stream.ended() is StatusCode.OK
    stream.history.check()
    assert stream.history.result("running").output_tokens == 40
    assert await exit_status(server) == 0


async def test_a_client_that_does_not_read_does_not_keep_the_server_from_ending(
    start_server: StartServer,
) -> None:
    server = start_server("--replay", "--time-scale", "100")
    async with Connection(server.address) as connection:
        call = await submit_without_reading(connection, 1500)
        await connection.until_stats(lambda stats: stats.finished_total == 1500)
        assert await exit_status(server) == 0
        # The server did end with messages that it could not get rid of.
        with pytest.raises(grpc.aio.AioRpcError) as cut_off:
            async for _ in call:
                pass
    assert cut_off.value.code() is StatusCode.UNAVAILABLE
