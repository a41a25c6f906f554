"""Cancelled, expired or abandoned: a request ends once, and its slot and KV blocks are free.

The fixture `slow` adds to every test: afterwards nothing scores, waits, runs or holds a KV block.
"""

import grpc
import pytest
from grpc import StatusCode
from support.messages import answer_text, code, inference, reason, rich_status
from support.server_process import Connection, ServerProcess
from support.slots import occupied
from support.submit_stream import SubmitStream

from rankserve.v1 import scheduler_pb2 as pb


async def cancel(connection: Connection, request_id: str) -> bool:
    request = pb.CancelRequestRequest(request_id=request_id)
    return (await connection.scheduler.CancelRequest(request)).cancelled


async def state_of(connection: Connection, request_id: str) -> pb.GetRequestResponse:
    return await connection.scheduler.GetRequest(pb.GetRequestRequest(request_id=request_id))


def assert_cancelled(failure: pb.RequestFailure, why: str = "CANCELLED") -> None:
    assert code(failure.status) is StatusCode.CANCELLED
    assert reason(failure.status) == why


async def test_cancel_while_it_is_scored(slow: Connection) -> None:
    async with occupied(slow), SubmitStream(slow.scheduler) as stream:
        await stream.send(inference("scored", prompt="heliotrope slow"))
        await slow.until_stats(lambda stats: stats.scoring == 1)
        assert (await state_of(slow, "scored")).state == pb.REQUEST_STATE_ACCEPTED
        assert await cancel(slow, "scored")
        history = await stream.finish()
    assert history.kinds("scored") == ["accepted", "failed"]
    assert_cancelled(history.failure("scored"))


async def test_cancel_while_it_waits(slow: Connection) -> None:
    async with occupied(slow), SubmitStream(slow.scheduler) as stream:
        await stream.send(inference("waiting"))
        await stream.until_all("queued", ["waiting"])
        assert (await state_of(slow, "waiting")).state == pb.REQUEST_STATE_WAITING
        assert await cancel(slow, "waiting")
        history = await stream.finish()
        assert (await slow.stats()).waiting == 0
    assert history.kinds("waiting") == ["accepted", "queued", "failed"]
    assert_cancelled(history.failure("waiting"))


async def test_cancel_while_it_runs_gives_its_slot_to_the_next(slow: Connection) -> None:
    async with occupied(slow) as occupants, SubmitStream(slow.scheduler) as stream:
        await stream.send(inference("next"))
        await stream.until_all("queued", ["next"])
        running = next(iter(occupants.history.by_id))
        assert (await state_of(slow, running)).state == pb.REQUEST_STATE_RUNNING
        assert await cancel(slow, running)
        assert (await stream.finish()).result("next").output_tokens == 3
        await occupants.until_ended(running)
        occupants.history.check([running])
        failure = occupants.history.failure(running)
        assert_cancelled(failure)
        assert failure.output_tokens == occupants.history.tokens(running) > 0
        assert (await state_of(slow, running)).failure == failure


async def test_cancel_of_an_ended_request_changes_nothing(slow: Connection) -> None:
    async with SubmitStream(slow.scheduler) as stream:
        await stream.send(inference("ended"))
        result = (await stream.finish()).result("ended")
    cancelled_before = (await slow.stats()).cancelled_total
    assert not await cancel(slow, "ended")
    assert (await state_of(slow, "ended")).result == result
    assert (await slow.stats()).cancelled_total == cancelled_before


@pytest.mark.parametrize("request_id", ["never-seen", "", "x" * 1000])
async def test_an_unknown_id_is_not_found(slow: Connection, request_id: str) -> None:
    for call in (cancel, state_of):
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await call(slow, request_id)
        assert missing.value.code() is StatusCode.NOT_FOUND
        assert reason(rich_status(missing.value)) == "REQUEST_NOT_FOUND"


async def test_a_lost_stream_cancels_its_requests(slow: Connection) -> None:
    async with occupied(slow), SubmitStream(slow.scheduler) as stream:
        await stream.send(*(inference(f"lost-{n}") for n in range(20)))
        await stream.until_all("queued", [f"lost-{n}" for n in range(20)])
    await slow.until_idle()
    for n in range(20):
        assert_cancelled((await state_of(slow, f"lost-{n}")).failure, "STREAM_LOST")


async def test_a_lost_generate_cancels_its_request(slow: Connection) -> None:
    request = pb.GenerateRequest(request=inference("generate", output=8000))
    call = slow.scheduler.Generate(request)
    await call.read()
    call.cancel()
    await slow.until_idle()
    assert_cancelled((await state_of(slow, "generate")).failure, "STREAM_LOST")


async def test_a_client_that_vanishes_cancels_its_requests(
    slow: Connection, slow_server: ServerProcess
) -> None:
    async with Connection(slow_server.address) as other:
        stream = SubmitStream(other.scheduler)
        await stream.send(inference("vanished", output=8000))
        await stream.until_all("tokens", ["vanished"])
    await stream.ended()
    await slow.until_idle()
    assert_cancelled((await state_of(slow, "vanished")).failure, "STREAM_LOST")


async def test_a_detached_request_outlives_its_stream(slow: Connection) -> None:
    runs = inference("detached-runs", output=60, detached=True)
    waits = inference("detached-waits", output=4, detached=True, result_only=True)
    async with SubmitStream(slow.scheduler) as stream:
        await stream.send(runs)
        await stream.until_all("tokens", ["detached-runs"])
    async with occupied(slow), SubmitStream(slow.scheduler) as stream:
        await stream.send(waits, inference("attached"))
        await stream.until_all("queued", ["detached-waits", "attached"])
        stream.lose()
        await slow.until_stats(lambda stats: stats.waiting == 1)
    await slow.until_idle()
    assert (await state_of(slow, "detached-waits")).result.text == answer_text(4)
    assert (await state_of(slow, "detached-runs")).result.output_tokens == 60
    assert_cancelled((await state_of(slow, "attached")).failure, "STREAM_LOST")
    # Its tokens are not lost either: who submits it again is told all of them.
    async with SubmitStream(slow.scheduler) as stream:
        await stream.send(runs)
        assert (await stream.finish()).text("detached-runs") == answer_text(60)


async def test_a_deadline_ends_what_waits_and_what_runs(slow: Connection) -> None:
    expired_before = (await slow.stats()).expired_total
    async with SubmitStream(slow.scheduler) as stream:
        await stream.send(inference("expires-running", output=8000, deadline_ms=150))
        await stream.until_ended("expires-running")
        async with occupied(slow):
            await stream.send(inference("expires-waiting", deadline_ms=50))
            await stream.until_ended("expires-waiting")
        await stream.send(inference("in-time", deadline_ms=60_000))
        history = await stream.finish()
    for request_id in ("expires-running", "expires-waiting"):
        status = history.failure(request_id).status
        assert (code(status), reason(status)) == (StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED")
    assert history.failure("expires-running").output_tokens > 0
    assert history.kinds("expires-waiting") == ["accepted", "queued", "failed"]
    assert history.result("in-time").output_tokens == 3
    assert (await slow.until_idle()).expired_total == expired_before + 2


async def test_a_deadline_ends_what_is_still_being_scored(slow: Connection) -> None:
    async with occupied(slow), SubmitStream(slow.scheduler) as stream:
        await stream.send(inference("expires-scoring", prompt="heliotrope slow", deadline_ms=50))
        history = await stream.finish()
    assert history.kinds("expires-scoring") == ["accepted", "failed"]
    assert code(history.failure("expires-scoring").status) is StatusCode.DEADLINE_EXCEEDED
