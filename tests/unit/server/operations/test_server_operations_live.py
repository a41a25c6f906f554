"""What the live page is told, and by how many it is watched."""

import asyncio
import json
from typing import cast

import pytest
from support.ended_requests import ARRIVAL_S, finish, live_request
from support.requests import make_request

from rankserve.server.access.principal import ANYBODY, Principal, Role
from rankserve.server.operations.application import content_security_policy
from rankserve.server.operations.live_feed import LiveFeed, TooManyWatchersError
from rankserve.server.operations.live_view import LiveView, RecentLatencies
from rankserve.server.scheduling.budget import EngineRoom
from rankserve.server.scheduling.policies import make_policy
from rankserve.server.scheduling.scheduler import Scheduler
from rankserve.v1 import scheduler_pb2 as pb


class Setup:
    """A scheduler with three requests of tenant a and b, one of which runs."""

    def __init__(self) -> None:
        self.now_s = ARRIVAL_S + 10
        self.stats = pb.GetStatsResponse(
            state=pb.SERVER_STATE_SERVING, ranker_version="toy/2", kv_blocks_used=25, kv_blocks_total=100
        )
        self.stats.ranker_accuracy.add(ranker_version="toy/1", kendall_tau=0.9, requests=7)
        self.stats.ranker_accuracy.add(ranker_version="toy/2", kendall_tau=0.5, requests=3)
        self.scheduler = Scheduler(make_policy("ranking"))
        for name, tenant, score in (("first", "a", 9.0), ("second", "a", 5.0), ("third", "b", 1.0)):
            request = make_request(
                name, arrival_s=ARRIVAL_S, tenant=tenant, score=score, expected_tokens=30.0
            )
            self.scheduler.submit(request)
        self.scheduler.submit(make_request("unscored", arrival_s=ARRIVAL_S, tenant="b"))
        self.scheduler.plan(ARRIVAL_S, EngineRoom(sequences=1, batched_tokens=2048, kv_blocks=1000))
        self.latencies = RecentLatencies()
        self.view = LiveView(
            lambda: self.stats,
            self.scheduler,
            self.latencies,
            clock=lambda: self.now_s,
            wall_clock=lambda: 5.0,
        )


@pytest.fixture
def setup() -> Setup:
    return Setup()


def test_a_snapshot_shows_who_is_next_and_who_runs(setup: Setup) -> None:
    snapshot = setup.view.snapshot()
    assert [row["id"] for row in snapshot["batch"]] == ["first"]
    assert sorted(row["id"] for row in snapshot["queue"]) == ["second", "third", "unscored"]
    rows = {row["id"]: row for row in snapshot["queue"]}
    assert rows["second"]["score"] == 5.0
    assert rows["second"]["expected_tokens"] == 30.0
    assert rows["second"]["waited_s"] == 10.0
    assert rows["unscored"]["score"] is None
    assert rows["unscored"]["expected_tokens"] is None
    json.dumps(snapshot, allow_nan=False)


def test_tau_is_that_of_the_active_version(setup: Setup) -> None:
    assert setup.view.snapshot()["now"]["kendall_tau"] == 0.5
    assert setup.view.snapshot()["server"]["kendall_tau_requests"] == 3


def test_points_are_of_the_last_five_minutes(setup: Setup) -> None:
    setup.latencies.ended(finish(live_request()))
    for _ in range(400):
        setup.now_s += 1
        setup.stats.output_tokens_total += 50
        setup.view.sample()
        if setup.now_s == ARRIVAL_S + 11:
            assert setup.view.history()[-1]["ttft_p50_s"] == 3.0
            assert setup.view.history()[-1]["e2e_p99_s"] == 8.0
    points = setup.view.history()
    assert len(points) == 300
    assert points[-1]["tokens_per_s"] == 50.0
    assert points[-1]["kv_usage"] == 0.25
    assert points[-1]["ttft_p50_s"] is None, "a latency of six minutes ago is not one of the last minute"


async def test_a_watcher_gets_the_history_and_then_each_look(setup: Setup) -> None:
    feed = LiveFeed(setup.view, interval_s=0.01)
    feed.start()
    events = feed.watch(ANYBODY)
    first = json.loads((await anext(events)).removeprefix("data: "))
    second = json.loads((await anext(events)).removeprefix("data: "))
    assert len(first["history"]) >= 1
    assert "history" not in second
    waiting = asyncio.ensure_future(anext(events, None))
    await feed.aclose()
    while waiting_value := await waiting:
        waiting = asyncio.ensure_future(anext(events, None))
    assert waiting_value is None, "streams end when the server does"


async def test_callers_of_some_tenants_see_only_their_requests(setup: Setup) -> None:
    feed = LiveFeed(setup.view)
    of_b = Principal("b", frozenset({Role.OBSERVE}), frozenset({"b"}))
    seen = feed.current(of_b)
    assert sorted(row["id"] for row in seen["queue"]) == ["third", "unscored"]
    assert seen["batch"] == []
    assert len(feed.current(ANYBODY)["queue"]) == 3


def test_watchers_are_bounded(setup: Setup) -> None:
    feed = LiveFeed(setup.view, most_watchers=2)
    feed.join()
    feed.join()
    with pytest.raises(TooManyWatchersError):
        feed.join()
    feed.leave()
    feed.join()


async def test_a_view_that_fails_ends_nothing(setup: Setup) -> None:
    feed = LiveFeed(setup.view, interval_s=0.001)
    feed.start()
    setup.view._scheduler = cast(Scheduler, None)
    setup.view._stats = cast("type[pb.GetStatsResponse]", None)
    await asyncio.sleep(0.02)
    setup.view._stats = lambda: setup.stats
    setup.view._scheduler = setup.scheduler
    events = feed.watch(ANYBODY)
    await anext(events)
    await anext(events)
    await feed.aclose()


def test_the_policy_names_each_script_and_style_of_the_page() -> None:
    policy = content_security_policy("<style>a{}</style><script>1</script><script>2</script>")
    assert policy.count("'sha256-") == 3
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
