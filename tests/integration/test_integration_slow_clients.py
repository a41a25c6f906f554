"""Clients that do not read what they asked for."""

import asyncio

import grpc
import pytest
from support.messages import code, inference, reason, rich_status
from support.server_process import Connection, StartServer
from support.submit_stream import SubmitStream, submit_without_reading

from rankserve.v1 import scheduler_pb2 as pb


async def test_a_client_that_reads_nothing_is_cut_with_a_clear_status(start_server: StartServer) -> None:
    server = start_server("--replay", "--time-scale", "100", "--slow-client-s", "1")
    async with Connection(server.address) as connection:
        call = await submit_without_reading(connection, 1500)
        stats = await connection.until_stats(lambda stats: stats.slow_clients_total == 1)
        await connection.until_idle()
        assert stats.open_streams == 0
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            await _read_to_the_end(call)
        status = rich_status(cut.value)
        assert (code(status), reason(status)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_CLIENT")
        async with SubmitStream(connection.scheduler) as stream:
            await stream.send(inference("after"))
            await stream.finish()


async def _read_to_the_end(call: grpc.aio.StreamStreamCall[pb.SubmitRequest, pb.SubmitResponse]) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_a_client_that_pauses_for_less_is_not_cut(start_server: StartServer) -> None:
    server = start_server("--replay", "--time-scale", "100", "--slow-client-s", "20")
    async with Connection(server.address) as connection:
        call = await submit_without_reading(connection, 1500)
        await call.done_writing()
        await asyncio.sleep(2)
        finished = 0
        while (response := await call.read()) is not grpc.aio.EOF:
            assert isinstance(response, pb.SubmitResponse)
            finished += sum(event.HasField("finished") for event in response.events)
        assert finished == 1500
        assert (await connection.stats()).slow_clients_total == 0
