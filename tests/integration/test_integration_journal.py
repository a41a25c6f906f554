"""Requests outlive kill -9: what was acknowledged is served, what was told is not told again."""

import asyncio
import sqlite3
import subprocess

import grpc
import pytest
from grpc import StatusCode
from support.lives import ServerLives, watch
from support.messages import answer_text, code, inference, reason, rich_status
from support.server_process import Connection, environment, serve_command
from support.submit_stream import SubmitStream

from rankserve.v1 import admin_pb2
from rankserve.v1 import scheduler_pb2 as pb

FCFS = ("--policy", "fcfs")


async def test_unfinished_requests_go_on_after_kill_9(lives: ServerLives) -> None:
    server = lives.start("--max-sequences", "4", *FCFS)
    lengths = {f"r{n:02}": 3 if n < 5 else 40 + n for n in range(30)}
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(*(inference(i, output=n, detached=True) for i, n in lengths.items()))
        await stream.until(lambda history: len(history.ids_with["finished"]) >= 5)
        await stream.until(lambda history: history.tokens("r06") >= 10)
        await lives.restart("--max-sequences", "4", *FCFS)
        before = stream.history
    assert before.ids_with["accepted"] == lengths.keys()
    told = {request_id: before.tokens(request_id) for request_id in lengths}
    assert lives.server is not None
    async with Connection(lives.server.address) as connection:
        after = await watch(connection, told)
        whole = await watch(connection, list(lengths))
        stats = await connection.stats()
    for request_id, length in lengths.items():
        assert before.text(request_id) + after.text(request_id) == answer_text(length)
        assert after.kinds(request_id)[0] == "accepted"
        assert whole.result(request_id) == after.result(request_id)
    for request_id in before.ids_with["finished"]:
        assert whole.result(request_id) == before.result(request_id)
    whole.check()
    resumed = [request_id for request_id in lengths if request_id not in before.ids_with["finished"]]
    waited = [request_id for request_id in resumed if told[request_id] == 0]
    assert [i for i in dict.fromkeys(after.order_of("tokens")) if i in waited] == waited, "nobody overtakes"
    assert stats.recovered_total == len(resumed)
    assert (stats.journal_live, stats.journal_retained) == (0, 30)


async def test_who_wanted_only_the_result_gets_it_after_kill_9(lives: ServerLives) -> None:
    server = lives.start()
    ids = ["ended", "running"]
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(
            inference("ended", output=7, result_only=True),
            inference("running", output=120, result_only=True, metadata={"colour": "blue"}),
        )
        await stream.until_ended("ended")
        server = await lives.restart()
    async with Connection(server.address) as connection:
        history = await watch(connection, ids)
    assert history.result("ended").text == answer_text(7)
    assert history.result("running").text == answer_text(120)
    assert history.result("running").metadata == {"colour": "blue"}


async def test_an_id_stays_taken_after_a_restart(lives: ServerLives) -> None:
    server = lives.start("--max-sequences", "1")
    requests = {
        "ended": inference("ended", output=5),
        "runs": inference("runs", output=200),
        "waits": inference("waits", output=5),
    }
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(requests["ended"])
        await stream.until_ended("ended")
        await stream.send(requests["runs"], requests["waits"])
        await stream.until_all("tokens", ["runs"])
        await stream.until_all("queued", ["waits"])
        server = await lives.restart("--max-sequences", "1")
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        for request_id in requests:
            other = inference(request_id, output=6)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                async for _ in connection.scheduler.Generate(pb.GenerateRequest(request=other)):
                    pass
            assert refused.value.code() is StatusCode.ALREADY_EXISTS
        await stream.send(*requests.values())
        history = await stream.finish()
        stats = await connection.stats()
    assert [history.text(i) for i in requests] == [answer_text(5), answer_text(200), answer_text(5)]
    assert stats.accepted_total == 2, "those that were unfinished, and none again"


async def test_deadlines_pass_while_the_server_is_down(lives: ServerLives) -> None:
    server = lives.start("--max-sequences", "1")
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(
            inference("occupant", output=8000, detached=True),
            inference("late", output=3, detached=True, deadline_ms=1500),
            inference("in-time", output=3, detached=True, deadline_ms=600_000, priority=-1),
        )
        await stream.until_all("queued", ["occupant", "late", "in-time"])
        await asyncio.to_thread(lives.kill)
        await asyncio.sleep(1.5)
        server = await asyncio.to_thread(lives.start, "--max-sequences", "1")
    async with Connection(server.address) as connection:
        history = await watch(connection, ["late", "in-time"])
        await connection.scheduler.CancelRequest(pb.CancelRequestRequest(request_id="occupant"))
        await connection.until_idle()
    assert code(history.failure("late").status) is StatusCode.DEADLINE_EXCEEDED
    assert history.result("in-time").output_tokens == 3


async def test_sigterm_leaves_detached_requests_to_the_next_start(lives: ServerLives) -> None:
    options = ("--max-sequences", "2", *FCFS, "--drain-timeout-s", "30")
    server = lives.start(*options)
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        mixed = ["mine-runs", "left-runs", "left-waits", "mine-waits"]
        await stream.send(
            *(inference(i, output=150 if "runs" in i else 4, detached="left" in i) for i in mixed)
        )
        await stream.until_all("tokens", mixed[:2])
        await stream.until_all("queued", mixed)
        await asyncio.to_thread(lives.stop)
        status = await stream.ended()
    history = stream.history
    assert status is StatusCode.UNAVAILABLE, "not all of its requests have ended"
    # What ran was served to its end, though another request of the stream was left.
    for request_id in ("mine-runs", "left-runs"):
        assert history.text(request_id) == answer_text(150)
        assert history.result(request_id).output_tokens == 150
    assert reason(history.failure("mine-waits").status) == "DRAINING"
    assert history.kinds("left-waits") == ["accepted", "queued"]
    server = await asyncio.to_thread(lives.start, *options)
    async with Connection(server.address) as connection:
        after = await watch(connection, mixed)
        stats = await connection.stats()
    assert after.text("left-waits") == answer_text(4)
    assert reason(after.failure("mine-waits").status) == "DRAINING"
    assert after.result("mine-runs") == history.result("mine-runs")
    assert stats.recovered_total == 1


async def test_a_drain_that_takes_too_long_leaves_the_rest_of_the_answer(lives: ServerLives) -> None:
    server = lives.start("--drain-timeout-s", "0.2")
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(inference("long", output=300, detached=True))
        await stream.until(lambda history: history.tokens("long") >= 20)
        await asyncio.to_thread(lives.stop)
        await stream.ended()
    told = stream.history.tokens("long")
    assert 20 <= told < 300
    server = await asyncio.to_thread(lives.start)
    async with Connection(server.address) as connection:
        after = await watch(connection, {"long": told})
    assert stream.history.text("long") + after.text("long") == answer_text(300)


async def test_cancelled_stays_cancelled(lives: ServerLives) -> None:
    server = lives.start("--max-sequences", "1")
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(inference("runs", output=8000), inference("waits"))
        await stream.until(lambda history: history.tokens("runs") >= 5)
        for request_id in ("runs", "waits"):
            request = pb.CancelRequestRequest(request_id=request_id)
            assert (await connection.scheduler.CancelRequest(request)).cancelled
        server = await lives.restart()
    async with Connection(server.address) as connection:
        history = await watch(connection, ["runs", "waits"])
        assert (await connection.stats()).recovered_total == 0
    for request_id in ("runs", "waits"):
        assert code(history.failure(request_id).status) is StatusCode.CANCELLED
    assert history.text("runs") == answer_text(history.failure("runs").output_tokens)


async def test_results_are_kept_as_long_as_was_said(lives: ServerLives) -> None:
    options = ("--retain-results", "3", "--retain-s", "600")
    server = lives.start(*options)
    ids = [f"r{n}" for n in range(6)]
    async with Connection(server.address) as connection:
        for request_id in ids:
            async with SubmitStream(connection.scheduler) as stream:
                await stream.send(inference(request_id))
                await stream.finish()
        assert (await connection.stats()).journal_retained == 3
    server = await lives.restart(*options)
    async with Connection(server.address) as connection:
        history = await watch(connection, ids)
    assert history.ids_with["finished"] == set(ids[3:])
    for request_id in ids[:3]:
        assert reason(history.failure(request_id).status) == "REQUEST_NOT_FOUND"
    await lives.restart("--retain-s", "0")
    await asyncio.to_thread(lives.stop)
    connection_to_file = sqlite3.connect(lives.journal)
    assert connection_to_file.execute("SELECT count(*) FROM requests").fetchone() == (0,)
    connection_to_file.close()


async def test_all_that_waits_is_scored_again(lives: ServerLives) -> None:
    """Scores are not kept: the next life may have another ranker."""
    options = ("--max-sequences", "1", "--policy", "ranking")
    server = lives.start(*options)
    words = {f"r{n}": 1 + (7 * n) % 20 for n in range(20)}
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await connection.admin.Pause(admin_pb2.PauseRequest())
        await stream.send(*(inference(i, words=w, output=1, detached=True) for i, w in words.items()))
        await stream.until_all("queued", words)
        server = await lives.restart(*options)
    async with Connection(server.address) as connection:
        history = await watch(connection, list(words))
    assert {i: history.result(i).score for i in words} == {i: float(-1 - w) for i, w in words.items()}


# A journal that cannot be used


def refused_start(lives: ServerLives, repository: str) -> str:
    options = ("--repository", repository, "--journal", str(lives.journal))
    result = subprocess.run(
        serve_command(*options), capture_output=True, text=True, env=environment(), timeout=60, check=False
    )
    assert result.returncode == 2, result
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("rankserve serve: "), last
    return last


def test_a_damaged_journal_is_refused_and_left_as_it_is(lives: ServerLives, repository: object) -> None:
    lives.journal.write_bytes(b"\0these are not the bytes of a database" * 500)
    before = lives.journal.read_bytes()
    said = refused_start(lives, str(repository))
    assert str(lives.journal) in said
    assert "move it and its -wal and -shm files away" in said
    assert lives.journal.read_bytes() == before
    lives.journal.unlink()
    lives.start()


async def test_a_damaged_entry_is_refused_by_name(lives: ServerLives, repository: object) -> None:
    server = lives.start()
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(inference("spoilt"))
        await stream.finish()
    await asyncio.to_thread(lives.stop)
    with sqlite3.connect(lives.journal) as file:
        file.execute("UPDATE requests SET outcome = '{'")
    file.close()
    assert "entry of request 'spoilt'" in await asyncio.to_thread(refused_start, lives, str(repository))


def test_a_journal_belongs_to_one_server(lives: ServerLives, repository: object) -> None:
    lives.start()
    assert "is in use by another server" in refused_start(lives, str(repository))


async def test_what_was_never_accepted_is_not_found(lives: ServerLives) -> None:
    server = lives.start()
    async with Connection(server.address) as connection:
        history = await watch(connection, ["never-submitted"])
        assert reason(history.failure("never-submitted").status) == "REQUEST_NOT_FOUND"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await watch(connection, [])
        assert reason(rich_status(refused.value)) == "INVALID_REQUEST"
