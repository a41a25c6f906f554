"""What a full queue refuses."""

import grpc
from support.messages import code, inference, reason, retry_delay_s
from support.server_process import Connection, StartServer
from support.submit_stream import SubmitStream


async def test_a_burst_into_an_idle_server_finds_the_queue_and_the_slots(start_server: StartServer) -> None:
    server = start_server("--replay", "--max-sequences", "4", "--max-waiting", "10", "--time-scale", "0.1")
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        ids = [f"r{n}" for n in range(10 + 4 + 5)]
        await stream.send_together(*(inference(request_id, output=200) for request_id in ids))
        await stream.until(lambda history: len(history.ids_with["accepted"]) + len(history.ended) >= len(ids))
        refused = [stream.history.failure(request_id).status for request_id in stream.history.ended]
        assert len(refused) == 5
        for status in refused:
            assert (code(status), reason(status)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
            assert retry_delay_s(status) > 0


async def test_a_tenant_is_held_to_its_share_of_the_queue(start_server: StartServer) -> None:
    options = ("--max-sequences", "1", "--max-waiting-per-tenant", "3", "--time-scale", "0.1")
    server = start_server("--replay", *options)
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(inference("runs", output=8000, tenant="other"))
        await stream.until_all("tokens", ["runs"])
        await stream.send_together(*(inference(f"a{n}", tenant="a") for n in range(5)))
        await stream.send_together(*(inference(f"b{n}", tenant="b") for n in range(3)))
        await stream.until_all("accepted", ["a0", "a1", "a2", "b0", "b1", "b2"])
        await stream.until_ended("a3", "a4")
        status = stream.history.failure("a3").status
        assert (code(status), reason(status)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")


async def test_a_full_queue_sheds_what_has_worse_priority(start_server: StartServer) -> None:
    options = ("--max-sequences", "1", "--max-waiting", "3", "--shed", "--time-scale", "0.1")
    server = start_server("--replay", *options)
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(inference("runs", output=8000))
        await stream.until_all("tokens", ["runs"])
        await stream.send_together(*(inference(f"low{n}", priority=5) for n in range(3)))
        await stream.send_together(inference("high", priority=-5), inference("equal", priority=5))
        await stream.until(lambda history: len(history.ended) == 2)
        shed = next(name for name in stream.history.ended if name.startswith("low"))
        assert reason(stream.history.failure(shed).status) == "SHED"
        assert reason(stream.history.failure("equal").status) == "QUEUE_FULL"
        assert "high" in stream.history.ids_with["accepted"]
        assert (await connection.stats()).shed_total == 1


async def test_a_deadline_out_of_reach_is_refused_at_once(start_server: StartServer) -> None:
    options = ("--max-sequences", "1", "--refuse-late", "--policy", "fcfs")
    server = start_server("--replay", *options)
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        # A queue that has moved, so that there is something to estimate waits from.
        await stream.send_together(*(inference(f"r{n}", output=100) for n in range(40)))
        await stream.until_ended("r0", "r1", "r2", "r3")
        await stream.send(inference("late", deadline_ms=2000), inference("patient", deadline_ms=600_000))
        await stream.until_ended("late")
        status = stream.history.failure("late").status
        assert (code(status), reason(status)) == (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "DEADLINE_UNREACHABLE",
        )
        await stream.until_all("queued", ["patient"])
