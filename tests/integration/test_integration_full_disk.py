"""A journal that cannot be written: a clear state, nothing acknowledged, nothing lost, and then on by itself.

A limit on the size of the server's files stands for the full disk; it hits the log as well, as disks do.
"""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.lives import ServerLives, watch
from support.messages import answer_text, code, inference, reason, rich_status
from support.server_process import Connection, ServerProcess
from support.submit_stream import SubmitStream

from rankserve.v1 import scheduler_pb2 as pb


@contextmanager
def full_disk(server: ServerProcess) -> Iterator[None]:
    """No file of the server's can grow, nor be written beyond its first page."""
    pid = server.process.pid
    before, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        if server.alive:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (before, hard))


async def health_of(connection: Connection) -> "health_pb2.HealthCheckResponse.ServingStatus.ValueType":
    stub = health_pb2_grpc.HealthStub(connection.channel)
    service = "rankserve.v1.SchedulerService"
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def until_failed(connection: Connection) -> pb.GetStatsResponse:
    return await connection.until_stats(lambda stats: stats.state == pb.SERVER_STATE_FAILED)


async def until_serving(connection: Connection) -> pb.GetStatsResponse:
    return await connection.until_stats(lambda stats: stats.state == pb.SERVER_STATE_SERVING)


async def test_a_full_disk_and_room_again(lives: ServerLives) -> None:
    server = lives.start("--max-sequences", "2")
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(
            inference("runs", output=150),
            inference("mine", output=200, detached=True),
            inference("waits", output=4),
        )
        await stream.until_all("tokens", ["runs", "mine"])
        with full_disk(server):
            stats = await until_failed(connection)
            assert "the journal cannot be written" in stats.state_detail
            assert await health_of(connection) == health_pb2.HealthCheckResponse.NOT_SERVING
            told = {i: stream.history.tokens(i) for i in ("runs", "mine")}

            await stream.send(inference("refused"))
            await stream.until_ended("refused")
            status = stream.history.failure("refused").status
            assert (code(status), reason(status)) == (StatusCode.UNAVAILABLE, "JOURNAL_FAILED")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                async for _ in connection.scheduler.Generate(pb.GenerateRequest(request=inference("too"))):
                    pass
            assert reason(rich_status(refused.value)) == "JOURNAL_FAILED"

            # The engine has finished what it had by now. What is not recorded, nobody is told.
            await connection.until_stats(lambda stats: stats.running == 0)
            await asyncio.sleep(0.3)
            assert {i: stream.history.tokens(i) for i in told} == told
            assert stream.history.ended == {"refused"}
            state = await connection.scheduler.GetRequest(pb.GetRequestRequest(request_id="runs"))
            assert (state.state, state.output_tokens) == (pb.REQUEST_STATE_RUNNING, told["runs"])
        await until_serving(connection)
        assert await health_of(connection) == health_pb2.HealthCheckResponse.SERVING
        await stream.send(inference("after"))
        history = await stream.finish()
        stats = await connection.until_idle()
    for request_id, length in (("runs", 150), ("mine", 200), ("waits", 4), ("after", 3)):
        assert history.text(request_id) == answer_text(length)
    assert stats.state_detail == ""
    assert (stats.finished_total, stats.refused_total) == (4, 2)


async def test_nothing_is_accepted_from_the_moment_the_disk_is_full(lives: ServerLives) -> None:
    """Until the first write fails nobody can know; whoever came before is told once there is room."""
    server = lives.start()
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(inference("before"))
        await stream.until_ended("before")
        with full_disk(server):
            await stream.send(*(inference(f"r{n}", detached=True) for n in range(50)))
            await until_failed(connection)
            await asyncio.sleep(0.6)
            assert stream.history.ids_with["accepted"] == {"before"}
            known = await connection.scheduler.ListRequests(pb.ListRequestsRequest())
            assert [request.request_id for request in known.requests] == ["before"]
        await stream.until_ended(*(f"r{n}" for n in range(50)))
        history = await stream.finish()
    refused = {i for i in history.ids_with["failed"] if reason(history.failure(i).status) == "JOURNAL_FAILED"}
    assert history.ids_with["accepted"] == history.by_id.keys() - refused
    assert history.ids_with["finished"] == history.ids_with["accepted"]


async def test_kill_9_while_the_disk_is_full_loses_nothing_that_was_acknowledged(lives: ServerLives) -> None:
    server = lives.start("--max-sequences", "2")
    ids = [f"r{n}" for n in range(6)]
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(*(inference(i, output=100, detached=True) for i in ids))
        await stream.until_all("accepted", ids)
        await stream.until_all("tokens", ids[:2])
        with full_disk(server):
            await until_failed(connection)
            await stream.send(inference("never", detached=True))
            await stream.until_ended("never")
            await asyncio.to_thread(lives.kill)
    told = {i: stream.history.tokens(i) for i in ids}
    server = await asyncio.to_thread(lives.start)
    async with Connection(server.address) as connection:
        history = await watch(connection, {**told, "never": 0})
    assert reason(history.failure("never").status) == "REQUEST_NOT_FOUND"
    for request_id in ids:
        assert stream.history.text(request_id) + history.text(request_id) == answer_text(100)


async def test_a_server_with_a_full_disk_can_be_ended(lives: ServerLives) -> None:
    server = lives.start("--drain-timeout-s", "0.5")
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(inference("left", output=300, detached=True), inference("mine", output=300))
        await stream.until_all("tokens", ["left", "mine"])
        with full_disk(server):
            await until_failed(connection)
            # The limit stays until the process has ended.
            await asyncio.to_thread(server.stop)
    told = stream.history.tokens("left")
    await asyncio.to_thread(lives.stop)
    server = await asyncio.to_thread(lives.start)
    async with Connection(server.address) as connection:
        history = await watch(connection, {"left": told})
    assert stream.history.text("left") + history.text("left") == answer_text(300)
