"""One `Submit` stream carries thousands of requests, and every one of them ends exactly once."""

import random

from grpc import StatusCode
from support.messages import answer_text, code, inference, reason, retry_delay_s
from support.server_process import Connection, StartServer
from support.submit_stream import SubmitStream

from rankserve.v1 import scheduler_pb2 as pb


async def test_each_of_2000_requests_on_one_stream_ends_exactly_once(start_server: StartServer) -> None:
    # So few KV blocks that running requests are evicted and resumed: their tokens must be contiguous too.
    server = start_server("--replay", "--time-scale", "1000", "--max-sequences", "64", "--kv-blocks", "12")
    draw = random.Random(20)
    lengths = {f"r{n}": draw.randint(1, 60) for n in range(2000)}
    max_tokens = 50
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        for n, (request_id, length) in enumerate(lengths.items()):
            words = draw.randint(1, 20)
            await stream.send(
                inference(
                    request_id, words=words, output=length, max_tokens=max_tokens, result_only=n % 10 == 0
                )
            )
        history = await stream.finish()
        stats = await connection.until_idle()

    assert history.by_id.keys() == lengths.keys()
    for n, (request_id, length) in enumerate(lengths.items()):
        result = history.result(request_id)
        assert result.output_tokens == min(length, max_tokens)
        assert result.finish_reason == (
            pb.FINISH_REASON_LENGTH if length >= max_tokens else pb.FINISH_REASON_STOP
        )
        whole_text = result.text if n % 10 == 0 else history.text(request_id)
        assert whole_text == answer_text(result.output_tokens)
    results = [history.result(request_id) for request_id in lengths]
    assert stats.accepted_total == stats.finished_total == 2000
    assert stats.refused_total == stats.neutral_scores_total == 0
    assert stats.output_tokens_total == sum(result.output_tokens for result in results)
    assert stats.preemptions_total == sum(result.preemptions for result in results) > 0


async def test_an_overloaded_server_refuses_some_and_finishes_the_others(start_server: StartServer) -> None:
    server = start_server("--replay", "--max-sequences", "1", "--max-waiting", "50")
    ids = [f"r{n}" for n in range(500)]
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(inference("blocker", output=8000))
        await stream.until_all("tokens", ["blocker"])
        await stream.send(*(inference(request_id, output=1) for request_id in ids))
        await stream.until(lambda history: len(history.by_id) == 501)
        await connection.scheduler.CancelRequest(pb.CancelRequestRequest(request_id="blocker"))
        refused = stream.history.ids_with["failed"] - {"blocker"}
        assert refused == set(ids[50:])
        for request_id in refused:
            status = stream.history.failure(request_id).status
            assert (code(status), reason(status)) == (StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
            assert retry_delay_s(status) > 0
        await stream.until_ended(*ids)
        assert stream.history.ids_with["finished"] == set(ids[:50])

        # Nothing was kept of the refused: the same id may come again, with any body.
        async with SubmitStream(connection.scheduler) as second:
            await second.send(inference(ids[499], output=2))
            assert (await second.finish()).result(ids[499]).output_tokens == 2
        stats = await connection.until_idle()
    assert stats.refused_total == 450
    assert stats.accepted_total == 52
