"""The same id and body is the same request; the same id with another body is refused."""

import grpc
import pytest
from grpc import StatusCode
from support.messages import answer_text, code, inference, reason, rich_status
from support.server_process import Connection
from support.slots import occupied
from support.submit_stream import SubmitStream

from rankserve.v1 import scheduler_pb2 as pb


async def test_a_repeat_while_it_waits_is_the_same_request(slow: Connection) -> None:
    request = inference("waits", output=5)
    accepted_before = (await slow.stats()).accepted_total
    async with SubmitStream(slow.scheduler) as first, SubmitStream(slow.scheduler) as second:
        async with occupied(slow) as occupants:
            await first.send(request)
            await first.until_all("queued", ["waits"])
            await second.send(request)
            await second.until_all("queued", ["waits"])
            occupants.lose()
        histories = [await first.finish(), await second.finish()]
    assert [history.text("waits") for history in histories] == [answer_text(5)] * 2
    assert histories[0].result("waits") == histories[1].result("waits")
    assert (await slow.stats()).accepted_total == accepted_before + 4 + 1


async def test_a_repeat_while_it_runs_is_told_everything_from_the_first_token(slow: Connection) -> None:
    request = inference("runs", output=40)
    async with SubmitStream(slow.scheduler) as first, SubmitStream(slow.scheduler) as second:
        await first.send(request)
        await first.until(lambda history: history.tokens("runs") >= 5)
        await second.send(request)
        await second.until_all("tokens", ["runs"])
        histories = [await first.finish(), await second.finish()]
    assert [history.text("runs") for history in histories] == [answer_text(40)] * 2
    assert histories[1].kinds("runs")[:2] == ["accepted", "queued"]


async def test_a_repeat_after_the_end_is_told_the_whole_answer_again(slow: Connection) -> None:
    request = inference("over", output=5, metadata={"colour": "blue"})
    histories = []
    for _ in range(2):
        async with SubmitStream(slow.scheduler) as stream:
            await stream.send(request)
            histories.append(await stream.finish())
    assert [history.text("over") for history in histories] == [answer_text(5)] * 2
    assert histories[0].result("over") == histories[1].result("over")
    assert histories[1].result("over").metadata == {"colour": "blue"}


async def test_a_repeat_of_a_failed_request_is_told_of_the_failure(slow: Connection) -> None:
    request = inference("fails", output=8000)
    async with SubmitStream(slow.scheduler) as stream:
        await stream.send(request)
        await stream.until_all("tokens", ["fails"])
        await slow.scheduler.CancelRequest(pb.CancelRequestRequest(request_id="fails"))
        first = await stream.finish()
    async with SubmitStream(slow.scheduler) as stream:
        await stream.send(request)
        again = await stream.finish()
    assert first.failure("fails") == again.failure("fails")
    assert again.text("fails") == answer_text(first.failure("fails").output_tokens)


async def test_a_repeat_on_the_same_stream_changes_nothing(slow: Connection) -> None:
    request = inference("twice", output=20)
    async with SubmitStream(slow.scheduler) as stream:
        await stream.send(request, request)
        await stream.until_all("tokens", ["twice"])
        await stream.send(request)
        history = await stream.finish()
    assert history.text("twice") == answer_text(20)


async def test_who_repeats_a_request_keeps_it_alive(slow: Connection) -> None:
    request = inference("shared", output=60)
    async with SubmitStream(slow.scheduler) as first, SubmitStream(slow.scheduler) as second:
        for stream in (first, second):
            await stream.send(request)
            await stream.until_all("tokens", ["shared"])
        first.lose()
        await first.ended()
        assert (await second.finish()).text("shared") == answer_text(60)


@pytest.mark.parametrize("moment", ["waiting", "running", "ended"])
async def test_another_body_is_refused_and_the_first_goes_on(slow: Connection, moment: str) -> None:
    request_id = f"taken-{moment}"
    request = inference(request_id, output=30)
    other = inference(request_id, output=31)
    async with SubmitStream(slow.scheduler) as first, SubmitStream(slow.scheduler) as second:
        async with occupied(slow) as occupants:
            await first.send(request)
            await first.until_all("queued", [request_id])
            if moment != "waiting":
                occupants.lose()
                await first.until_all("tokens" if moment == "running" else "finished", [request_id])
            await second.send(other)
            failure = (await second.finish()).failure(request_id)
            assert code(failure.status) is StatusCode.ALREADY_EXISTS
            assert reason(failure.status) == "REQUEST_ID_IN_USE"
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                async for _ in slow.scheduler.Generate(pb.GenerateRequest(request=other)):
                    pass
            assert refused.value.code() is StatusCode.ALREADY_EXISTS
            assert reason(rich_status(refused.value)) == "REQUEST_ID_IN_USE"
        assert (await first.finish()).text(request_id) == answer_text(30)


async def test_a_conflict_on_the_stream_of_the_request_itself_does_not_end_it(slow: Connection) -> None:
    async with SubmitStream(slow.scheduler) as stream:
        await stream.send(inference("mine", output=30))
        await stream.until_all("tokens", ["mine"])
        await stream.send(inference("mine", output=31), inference("mine", prompt=""))
        await stream.half_close()
        assert await stream.ended() is StatusCode.OK
    failures = [code(e.failed.status) for e in stream.history.by_id["mine"] if e.HasField("failed")]
    assert failures == [StatusCode.ALREADY_EXISTS, StatusCode.INVALID_ARGUMENT]
    assert stream.history.result("mine").output_tokens == 30
    assert stream.history.text("mine") == answer_text(30)


async def test_a_lost_stream_cancels_its_request_also_after_a_conflict(slow: Connection) -> None:
    async with SubmitStream(slow.scheduler) as stream:
        await stream.send(inference("lost", output=8000))
        await stream.until_all("tokens", ["lost"])
        await stream.send(inference("lost", output=1))
        await stream.until_ended("lost")
    await slow.until_idle()
    state = await slow.scheduler.GetRequest(pb.GetRequestRequest(request_id="lost"))
    assert code(state.failure.status) is StatusCode.CANCELLED
