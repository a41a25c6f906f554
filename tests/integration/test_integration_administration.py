"""An operator pauses, drains, re-orders and looks at a server under load: no request is dropped."""

import asyncio
import random

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.messages import answer_text, code, inference, reason, rich_status, violated_fields
from support.server_process import Connection, StartServer
from support.slots import occupied
from support.submit_stream import SubmitStream

from rankserve.v1 import admin_pb2, ranker_pb2
from rankserve.v1 import scheduler_pb2 as pb


async def set_policy(connection: Connection, policy: str) -> admin_pb2.SetPolicyResponse:
    return await connection.admin.SetPolicy(admin_pb2.SetPolicyRequest(policy=policy))


async def health_of(connection: Connection) -> "health_pb2.HealthCheckResponse.ServingStatus.ValueType":
    stub = health_pb2_grpc.HealthStub(connection.channel)
    service = "rankserve.v1.SchedulerService"
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def test_paused_requests_are_accepted_and_wait(start_server: StartServer) -> None:
    server = start_server("--replay", "--max-sequences", "4")
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(inference("runs", output=60))
        await stream.until_all("tokens", ["runs"])
        assert (await connection.admin.Pause(admin_pb2.PauseRequest())).waiting == 0
        ids = [f"r{n}" for n in range(20)]
        await stream.send(*(inference(i) for i in ids))
        await stream.until_all("queued", ids)
        await stream.until_ended("runs")
        stats = await connection.stats()
        assert (stats.state, stats.waiting, stats.running) == (pb.SERVER_STATE_PAUSED, 20, 0)
        assert await health_of(connection) == health_pb2.HealthCheckResponse.SERVING
        assert (await connection.admin.Pause(admin_pb2.PauseRequest())).waiting == 20
        await connection.scheduler.CancelRequest(pb.CancelRequestRequest(request_id="r0"))
        await connection.admin.Resume(admin_pb2.ResumeRequest())
        history = await stream.finish()
        assert (await connection.stats()).state == pb.SERVER_STATE_SERVING
    assert code(history.failure("r0").status) is StatusCode.CANCELLED
    assert history.ids_with["finished"] == {"runs", *ids[1:]}


async def test_a_drained_server_serves_what_it_has_and_comes_back(start_server: StartServer) -> None:
    server = start_server("--replay", "--max-sequences", "2")
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        ids = [f"r{n}" for n in range(8)]
        await stream.send(*(inference(i, output=30) for i in ids))
        await stream.until_all("queued", ids)
        assert (await connection.admin.Drain(admin_pb2.DrainRequest())).live == 8
        assert (await connection.stats()).state == pb.SERVER_STATE_DRAINING
        assert await health_of(connection) == health_pb2.HealthCheckResponse.NOT_SERVING
        await stream.send(inference("refused"))
        await stream.until_ended("refused", *ids)
        assert reason(stream.history.failure("refused").status) == "DRAINING"
        await connection.admin.Resume(admin_pb2.ResumeRequest())
        assert await health_of(connection) == health_pb2.HealthCheckResponse.SERVING
        await stream.send(inference("accepted"))
        history = await stream.finish()
    assert history.ids_with["finished"] == {*ids, "accepted"}


async def test_a_new_policy_reorders_all_that_waits(start_server: StartServer) -> None:
    server = start_server("--replay", "--max-sequences", "1", "--policy", "fcfs")
    words = {f"r{n}": 1 + (7 * n) % 30 for n in range(30)}
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        async with occupied(connection):
            await stream.send(*(inference(i, words=w, output=1) for i, w in words.items()))
            await stream.until_all("queued", words)
            response = await set_policy(connection, "ranking")
        history = await stream.finish()
        stats = await connection.stats()
    assert (response.previous, response.reordered, stats.policy) == ("fcfs", 30, "ranking")
    assert history.order_of("finished") == sorted(words, key=words.__getitem__)
    assert {history.result(request_id).policy for request_id in words} == {"ranking"}


async def test_policies_change_under_load_and_nobody_is_lost(start_server: StartServer) -> None:
    server = start_server("--replay", "--max-sequences", "4", "--time-scale", "5", "--kv-blocks", "600")
    lengths = {f"r{n}": 1 + (13 * n) % 60 for n in range(300)}
    choose = random.Random(4)
    policies = ["fcfs", "ranking", "bounded_ranking", "aged_ranking", "mlfq", "hrrn", "edf", "sjf", "srtf"]
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:

        async def operate() -> None:
            while len(stream.history.ended) < len(lengths):
                await set_policy(connection, choose.choice(policies))
                if choose.random() < 0.3:
                    await connection.admin.Pause(admin_pb2.PauseRequest())
                    await asyncio.sleep(0.02)
                    await connection.admin.Resume(admin_pb2.ResumeRequest())
                await asyncio.sleep(choose.uniform(0, 0.05))

        operating = asyncio.create_task(operate())
        for n, (request_id, length) in enumerate(lengths.items()):
            fields = {"priority": n % 3 - 1, "tenant": f"t{n % 4}", "words": 1 + n % 9}
            await stream.send(inference(request_id, output=length, max_tokens=100, **fields))  # type: ignore[arg-type]
        await stream.until_ended(*lengths)
        await operating
        history = await stream.finish()
        await connection.until_idle()
    for request_id, length in lengths.items():
        assert history.text(request_id) == answer_text(length)


@pytest.mark.parametrize("policy", ["nope", ""])
async def test_a_policy_that_there_is_not(slow: Connection, policy: str) -> None:
    before = (await slow.stats()).policy
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await set_policy(slow, policy)
    assert refused.value.code() is StatusCode.INVALID_ARGUMENT
    assert violated_fields(rich_status(refused.value)) == ["policy"]
    assert (await slow.stats()).policy == before


async def test_a_policy_that_needs_more_than_the_ranker_gives(start_server: StartServer) -> None:
    server = start_server("--replay", "--ranker", "none", "--policy", "fcfs")
    async with Connection(server.address) as connection:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await set_policy(connection, "ranking")
        assert refused.value.code() is StatusCode.FAILED_PRECONDITION
        assert (await connection.stats()).policy == "fcfs"


# What an operator can see


async def listed(connection: Connection, **fields: object) -> list[list[str]]:
    """The ids of each page."""
    pages, token = [], ""
    while True:
        request = pb.ListRequestsRequest(page_token=token, **fields)  # type: ignore[arg-type]
        page = await connection.scheduler.ListRequests(request)
        pages.append([summary.request_id for summary in page.requests])
        token = page.next_page_token
        if not token:
            return pages


async def test_requests_are_listed_by_page_state_and_tenant(start_server: StartServer) -> None:
    server = start_server("--replay", "--max-sequences", "2")
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        ended = [f"ended-{n}" for n in range(3)]
        for request_id in ended:
            await stream.send(inference(request_id, tenant="a", priority=3))
            await stream.until_ended(request_id)
        running = [f"running-{n}" for n in range(2)]
        await stream.send(*(inference(i, output=8000, tenant="b") for i in running))
        await stream.until_all("tokens", running)
        waiting = [f"waiting-{n}" for n in range(20)]
        await stream.send(*(inference(i, tenant="ab"[n % 2]) for n, i in enumerate(waiting)))
        await stream.until_all("queued", waiting)
        await connection.scheduler.CancelRequest(pb.CancelRequestRequest(request_id="waiting-19"))

        everything = [*ended, *running, *waiting]
        assert await listed(connection) == [everything]
        pages = await listed(connection, page_size=7)
        assert [request_id for page in pages for request_id in page] == everything
        assert [len(page) for page in pages] == [7, 7, 7, 4]
        finished = [pb.REQUEST_STATE_FINISHED]
        assert await listed(connection, states=finished) == [ended]
        both = [pb.REQUEST_STATE_RUNNING, pb.REQUEST_STATE_FAILED]
        assert await listed(connection, states=both) == [[*running, "waiting-19"]]
        assert await listed(connection, tenant="a") == [[*ended, *waiting[::2]]]
        assert await listed(connection, tenant="") == [[]]
        (first,) = (await connection.scheduler.ListRequests(pb.ListRequestsRequest(page_size=1))).requests
        assert (first.request_id, first.tenant, first.priority) == ("ended-0", "a", 3)
        assert (first.state, first.output_tokens) == (pb.REQUEST_STATE_FINISHED, 3)
        stream.lose()
        await connection.until_idle()


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"page_size": 1001}, "page_size"),
        ({"page_token": "x"}, "page_token"),
        ({"page_token": "-1"}, "page_token"),
        ({"page_token": "9" * 5000}, "page_token"),
        ({"page_token": "\u0663"}, "page_token"),
    ],
)
async def test_pages_that_cannot_be(slow: Connection, fields: dict[str, object], wrong: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await slow.scheduler.ListRequests(pb.ListRequestsRequest(**fields))  # type: ignore[arg-type]
    assert refused.value.code() is StatusCode.INVALID_ARGUMENT
    assert violated_fields(rich_status(refused.value)) == [wrong]


async def test_stats_can_be_watched(slow: Connection) -> None:
    call = slow.scheduler.WatchStats(pb.WatchStatsRequest(interval_ms=100))
    seen = []
    async with SubmitStream(slow.scheduler) as stream:
        await stream.send(inference("seen", output=60))
        async for response in call:
            seen.append(response.stats)
            if len(stream.history.ended) == 1 and seen[-1].running == 0:
                break
        await stream.finish()
    call.cancel()
    assert any(stats.running == 1 for stats in seen)
    assert [stats.output_tokens_total for stats in seen] == sorted(s.output_tokens_total for s in seen)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async for _ in slow.scheduler.WatchStats(pb.WatchStatsRequest(interval_ms=99)):
            pass
    assert violated_fields(rich_status(refused.value)) == ["interval_ms"]


async def test_many_requests_in_one_message(slow: Connection) -> None:
    call = slow.scheduler.Submit()
    first, *more = (inference(f"many-{n}", output=2) for n in range(50))
    await call.write(pb.SubmitRequest(request=first, requests=[*more, inference("bad", prompt="")]))
    await call.write(pb.SubmitRequest())
    await call.done_writing()
    events = [event async for response in call for event in response.events]
    accepted = [event.request_id for event in events if event.HasField("accepted")]
    assert accepted == [f"many-{n}" for n in range(50)]
    assert sum(event.HasField("finished") for event in events) == 50
    (bad,) = [event for event in events if event.HasField("failed")]
    assert (bad.request_id, code(bad.failed.status)) == ("bad", StatusCode.INVALID_ARGUMENT)


# Ranker versions


async def test_a_version_is_made_ready_and_then_activated(
    start_server: StartServer, own_repository: object
) -> None:
    options = ("--ranker", "toy", "--ranker-version", "1", "--max-sequences", "1", "--policy", "ranking")
    server = start_server("--replay", *options, repository=own_repository)  # type: ignore[arg-type]
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        ids = [f"r{n}" for n in range(10)]
        async with occupied(connection):
            await stream.send(*(inference(i) for i in ids))
            await stream.until_all("queued", ids)
            load = ranker_pb2.LoadRankerVersionRequest(name="toy", version=2)
            loaded = await connection.ranker.LoadRankerVersion(load)
            assert (loaded.loaded.name, loaded.loaded.version, loaded.loaded.active) == ("toy", 2, False)
            assert (await connection.stats()).ranker_version == "toy/1"
            activate = ranker_pb2.ActivateRankerVersionRequest(name="toy", version=2)
            assert (await connection.ranker.ActivateRankerVersion(activate)).rescored == 10
        history = await stream.finish()
        assert (await connection.stats()).ranker_version == "toy/2"
        for name, version in (("toy", 9), ("nope", 1)):
            request = ranker_pb2.LoadRankerVersionRequest(name=name, version=version)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await connection.ranker.LoadRankerVersion(request)
            assert refused.value.code() is StatusCode.FAILED_PRECONDITION
    assert {history.result(i).ranker_version for i in ids} == {"toy/2"}


@pytest.mark.parametrize("word", ["poison", "crash", "slow"])
async def test_a_ranker_that_fails_means_fcfs_until_it_is_well_again(
    start_server: StartServer, word: str
) -> None:
    """NaN, an exception and a hang: no request waits longer for its score than the timeout says."""
    options = ("--max-sequences", "1", "--policy", "ranking", "--ranker-timeout-ms", "200")
    server = start_server("--replay", *options)
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        async with occupied(connection):
            ids = [f"r{n}" for n in range(8)]
            await stream.send(*(inference(i, prompt=f"{word} one", output=1) for i in ids))
            await stream.until_all("queued", ids)
        await stream.until_ended(*ids)
        stats = await connection.stats()
        assert stats.neutral_scores_total >= 8
        assert stats.ranker_detail
        history = stream.history
        assert history.order_of("finished") == ids
        assert {history.queued(i).ranker_version for i in ids} <= {"", "toy/1"}
        # It is well again without anybody's doing.
        async with occupied(connection):
            for attempt in range(200):
                request_id = f"well-{attempt}"
                await stream.send(inference(request_id, words=3))
                await stream.until_all("queued", [request_id])
                if not (await connection.stats()).ranker_detail:
                    break
                await asyncio.sleep(0.05)
        await stream.finish()
        assert (await connection.stats()).ranker_detail == ""
    assert history.queued(request_id).score == -4.0
