"""The load runner against a fake server."""

import asyncio
import logging
from pathlib import Path

import pytest

from rankserve.client import (
    AsyncSchedulerClient,
    ConnectionFailed,
    Draining,
    ResourceExhausted,
    Retry,
    Timeout,
)
from rankserve.client.load import Burst, LoadOptions, Poisson, Progress, Recorded, run_load
from rankserve.client.testing import FakeServer
from rankserve.progress import Lines, report_to
from rankserve.records.results import Run, read_run, write_run
from rankserve.records.workload import WorkloadRecord


def workload(count: int) -> list[WorkloadRecord]:
    return [
        WorkloadRecord(
            f"w{index}", "x" * (index % 7 + 1), output_tokens=index % 5 + 1, other_lengths=(2, 3), priority=1
        )
        for index in range(count)
    ]


async def load(server: FakeServer, records: list[WorkloadRecord], options: LoadOptions | None = None) -> Run:
    async with AsyncSchedulerClient(server.target) as client:
        return await run_load(client, records, Burst(), options)


async def test_every_record_has_its_result(server: FakeServer, tmp_path: Path) -> None:
    records = workload(300)
    run = await load(server, records, LoadOptions(workload_name="unit", streams=3))
    assert [result.id for result in run.results] == [record.id for record in records]
    for record, result in zip(records, run.results, strict=True):
        assert result.outcome == "finished"
        assert result.output_tokens == record.output_tokens
        assert result.score == -len(record.prompt)
        assert result.prompt_chars == len(record.prompt)
        assert (result.other_lengths, result.priority) == ((2, 3), 1)
        assert 0 <= result.sent_s <= result.end_s
        assert result.first_token_s is None
    assert {request.result_only for request in server.requests} == {True}
    write_run(tmp_path / "run.jsonl", run.header, run.results)
    assert read_run(tmp_path / "run.jsonl") == run


async def test_the_header_says_how_the_run_was_made(server: FakeServer) -> None:
    async with AsyncSchedulerClient(server.target) as client:
        run = await run_load(client, workload(5), Poisson(500, seed=11), LoadOptions(workload_name="unit"))
    header = run.header
    assert (header.policy, header.engine, header.ranker_version) == ("fcfs", "fake", "fake/1")
    assert (header.max_sequences, header.max_batched_tokens, header.kv_blocks) == (8, 2048, 1000)
    assert (header.seed, header.workload, header.time_scale) == (11, "unit", 1.0)
    assert header.arrivals["process"] == "poisson"
    assert header.arrivals["sender_lateness_p99_s"] >= 0
    assert header.versions["grpcio"]
    assert header.machine
    assert header.queue_depth


async def test_token_events_give_client_side_first_tokens(server: FakeServer) -> None:
    run = await load(server, workload(3), LoadOptions(result_only=False))
    for result in run.results:
        assert result.first_token_s is not None
        assert result.sent_s <= result.first_token_s <= result.end_s


async def test_lengths_are_replayed_only_when_asked(server: FakeServer) -> None:
    run = await load(server, [WorkloadRecord("a", "Hello", output_tokens=50)], LoadOptions(replay=False))
    assert server.requests[0].replay_output_tokens is None
    assert run.results[0].output_tokens == 3


async def test_a_workload_can_be_sent_twice_and_asks_for_the_same_answers(server: FakeServer) -> None:
    for _ in range(2):
        run = await load(server, workload(3))
        assert {result.outcome for result in run.results} == {"finished"}
    first, second = server.requests[:3], server.requests[3:]
    assert [request.seed for request in first] == [request.seed for request in second]
    assert len({request.seed for request in first}) == 3


async def test_requests_are_sent_in_the_order_of_their_times(server: FakeServer) -> None:
    records = [WorkloadRecord("late", "b", arrival_s=0.05), WorkloadRecord("early", "a", arrival_s=0.0)]
    async with AsyncSchedulerClient(server.target) as client:
        run = await run_load(client, records, Recorded())
    assert [result.id for result in run.results] == ["early", "late"]
    assert [request.prompt for request in server.requests] == ["a", "b"]
    assert run.results[1].sent_s >= 0.05


async def test_the_loop_is_open(server: FakeServer) -> None:
    """Every request is sent although none is answered."""
    server.hold()
    running = asyncio.create_task(load(server, workload(500)))
    while len(server.requests) < 500:
        await asyncio.sleep(0.01)
    server.release()
    run = await running
    assert {result.outcome for result in run.results} == {"finished"}


async def test_a_stalled_stream_does_not_slow_the_sender(server: FakeServer) -> None:
    """More is sent than the transport's buffers hold, to a server that does not read."""
    server.hold_reading()
    records = [WorkloadRecord(f"w{index}", "x" * 200_000) for index in range(200)]
    async with AsyncSchedulerClient(server.target) as client:
        seen: list[Progress] = []
        options = LoadOptions(stats_interval_s=0.02)
        running = asyncio.create_task(run_load(client, records, Burst(), options, on_progress=seen.append))
        while not seen or seen[-1].sent < 200:
            await asyncio.sleep(0.01)
        assert len(server.requests) < 200
        server.release()
        run = await running
    assert {result.outcome for result in run.results} == {"finished"}


async def test_it_is_a_stage_that_tells_what_is_sent_and_what_waits(server: FakeServer) -> None:
    lines: list[str] = []
    with report_to(Lines(lines.append)):
        await load(server, workload(3))
    assert lines[0] == "load under fcfs starts, 3 requests"
    assert lines[-1].startswith("load under fcfs: 3 requests in ")
    assert lines[-1].endswith(", 3 sent, 0 waiting")


async def test_failures_are_recorded_with_their_code(server: FakeServer) -> None:
    server.refuse(ResourceExhausted("the queue is full"))
    records = [*workload(2), WorkloadRecord("too-long", "x", max_tokens=2**40)]
    run = await load(server, records)
    assert [(result.outcome, result.output_tokens) for result in run.results] == [
        ("resource_exhausted", 0),
        ("resource_exhausted", 0),
        ("invalid_argument", 0),
    ]
    assert run.results[0].error == "the queue is full"
    assert run.results[0].score is None


async def test_a_draining_server_ends_what_waits(server: FakeServer) -> None:
    server.hold()
    running = asyncio.create_task(load(server, workload(4)))
    while len(server.requests) < 4:
        await asyncio.sleep(0.01)
    server.fail_waiting(Draining("shutting down", reason="DRAINING"))
    assert [result.outcome for result in (await running).results] == ["unavailable"] * 4


async def test_a_lost_server_fails_open_requests_and_those_still_to_be_sent(server: FakeServer) -> None:
    server.hold()
    records = [WorkloadRecord(f"w{index}", "x", arrival_s=index * 0.2) for index in range(4)]
    async with AsyncSchedulerClient(server.target) as client:
        running = asyncio.create_task(run_load(client, records, Recorded()))
        while not server.requests:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.stop)
        run = await running
    assert len(run.results) == 4
    assert {result.outcome for result in run.results} <= {"unavailable", "cancelled"}
    assert run.results[-1].sent_s >= 0.6


async def test_a_request_that_is_never_answered_is_given_up(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankserve.client.load.runner.SERVER_GRACE_S", 0.0)
    server.hold()
    run = await load(server, workload(3), LoadOptions(request_timeout_s=0.05))
    assert {result.outcome for result in run.results} == {"deadline_exceeded"}
    assert {request.deadline_ms for request in server.requests} == {50}


async def test_the_whole_run_is_bounded(server: FakeServer) -> None:
    server.hold()
    records = [WorkloadRecord("now", "x", arrival_s=0.0), WorkloadRecord("never", "x", arrival_s=3600.0)]
    async with AsyncSchedulerClient(server.target) as client:
        run = await run_load(client, records, Recorded(), LoadOptions(total_timeout_s=0.1))
    assert [result.outcome for result in run.results] == ["deadline_exceeded"] * 2
    assert len(server.requests) == 1


async def test_a_late_sender_is_warned_about(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    class InThePast(Burst):
        def times(self, workload: object) -> list[float]:
            return [-10.0]

    async with AsyncSchedulerClient(server.target) as client:
        with caplog.at_level(logging.WARNING, logger="rankserve"):
            run = await run_load(client, workload(1), InThePast())
    assert run.header.arrivals["sender_lateness_p99_s"] > 9
    assert "do not trust" in caplog.text


async def test_an_empty_workload_and_an_absent_server_are_errors(server: FakeServer) -> None:
    with pytest.raises(ValueError, match="empty"):
        await load(server, [])
    await asyncio.to_thread(server.stop)
    async with AsyncSchedulerClient(server.target, timeout=Timeout(connect_s=0.05)) as client:
        with pytest.raises(ConnectionFailed):
            await run_load(client, workload(1), Burst())


@pytest.mark.parametrize("option", ["streams", "request_timeout_s", "total_timeout_s", "stats_interval_s"])
def test_impossible_options_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=option):
        LoadOptions(**{option: 0})  # type: ignore[arg-type]


async def test_what_one_replica_sends_away_another_serves(server: FakeServer) -> None:
    server.refuse(Draining("shutting down", reason="DRAINING"))
    with FakeServer() as other:
        async with AsyncSchedulerClient([server.target, other.target]) as client:
            retry = Retry(attempts=50, first_backoff_s=0.01, max_backoff_s=0.05)
            run = await run_load(client, workload(10), Burst(), LoadOptions(retry=retry, streams=4))
        assert {result.outcome for result in run.results} == {"finished"}
        assert len(other.requests) == 10
