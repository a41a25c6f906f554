"""Whom a full queue drops for better ones, and whom it refuses since they would be late."""

from typing import cast

import pytest
from support.paced_journal import ONE, IdleEngine, IdleRanker

from rankserve.server.dispatcher import Dispatcher
from rankserve.server.engines.contract import Engine
from rankserve.server.errors import DeadlineUnreachable, QueueFull, QuotaExceeded, RequestShed
from rankserve.server.events import Event, EventStream, Failed
from rankserve.server.ranking.ranker import Ranker
from rankserve.server.requests import RequestSpec
from rankserve.server.scheduling.policies import make_policy
from rankserve.server.scheduling.scheduler import Scheduler
from rankserve.server.settings import ServerSettings


class Queue:
    def __init__(self, **settings: object) -> None:
        self.now_s = 0.0
        self.stream = EventStream()
        self.dispatcher = Dispatcher(
            Scheduler(make_policy("fcfs")),
            cast(Engine, IdleEngine(max_sequences=0)),
            cast(Ranker, IdleRanker()),
            ServerSettings.model_validate(settings),
            clock=lambda: self.now_s,
        )

    def submit(self, request_id: str, priority: int = 0, size: int = 10, **fields: object) -> None:
        spec = RequestSpec(request_id, b"", size, "p", "p", priority=priority, **fields)  # type: ignore[arg-type]
        self.dispatcher.submit(spec, self.stream)

    def start(self) -> list[str]:
        """Starts the next request, which ends at once."""
        assignments = self.dispatcher.plan(ONE).starting
        for assignment in assignments:
            self.dispatcher.registry.live.pop(assignment.request.id)
            self.dispatcher.scheduler.end(assignment.request)
        return [assignment.request.id for assignment in assignments]

    @property
    def waiting(self) -> list[str]:
        return [live.spec.id for live in self.dispatcher.live_requests()]

    async def failures(self, kind: type[Exception]) -> list[str]:
        events: list[Event] = await self.stream.take()
        failed = [event for event in events if isinstance(event, Failed)]
        assert all(isinstance(event.error, kind) for event in failed)
        return [event.request_id for event in failed]


async def test_a_full_queue_drops_the_worst_band_for_a_better_one() -> None:
    queue = Queue(max_waiting=4, shed=True)
    for request_id, priority in (("a", 0), ("b", 5), ("c", 1), ("d", 5)):
        queue.submit(request_id, priority)
    queue.submit("better", -1)
    queue.submit("good", 0)
    assert queue.waiting == ["a", "c", "better", "good"]
    for priority in (1, 2):
        with pytest.raises(QueueFull):
            queue.submit("no better than any", priority)
    queue.submit("urgent", -1)
    assert queue.waiting == ["a", "better", "good", "urgent"]
    assert sorted(await queue.failures(RequestShed)) == ["b", "c", "d"]
    counters = queue.dispatcher.counters
    assert (counters.shed, counters.failed, counters.refused, counters.accepted) == (3, 3, 2, 7)
    queue.dispatcher.scheduler.check_integrity()


async def test_who_was_dropped_may_come_again_under_its_id() -> None:
    queue = Queue(max_waiting=1, shed=True)
    queue.submit("a", 5)
    queue.submit("better", 0)
    queue.dispatcher.cancel("better")
    queue.submit("a", 5)
    assert queue.waiting == ["a"]


async def test_who_comes_again_may_be_forgotten_while_room_is_made_for_it() -> None:
    queue = Queue(max_waiting=1, shed=True, retain_results=2)
    queue.submit("a", 3)
    queue.submit("better", 1)
    queue.dispatcher.cancel("better")
    queue.submit("worse", 5)
    queue.submit("a", 3)
    assert queue.waiting == ["a"]
    assert list(queue.dispatcher.registry.ended) == ["better", "worse"]


async def test_without_shedding_a_full_queue_refuses_everybody() -> None:
    queue = Queue(max_waiting=1)
    queue.submit("a", 5)
    with pytest.raises(QueueFull):
        queue.submit("better", -5)
    assert queue.waiting == ["a"]


async def test_as_many_are_dropped_as_it_takes_and_no_more() -> None:
    queue = Queue(max_waiting_bytes=100, shed=True)
    for n in range(10):
        queue.submit(f"r{n}", 5)
    queue.submit("big", 0, size=25)
    assert len(queue.waiting) == 8
    assert queue.dispatcher.admission.waiting_bytes == 95


async def test_nobody_is_dropped_for_a_request_that_has_no_room_even_then() -> None:
    queue = Queue(max_waiting_bytes=100, shed=True)
    for n in range(5):
        queue.submit(f"good-{n}", 0)
        queue.submit(f"worse-{n}", 5)
    with pytest.raises(QueueFull):
        queue.submit("too big", 0, size=60)
    with pytest.raises(QueueFull):
        queue.submit("bigger than the queue", -5, size=101)
    assert len(queue.waiting) == 10
    assert queue.dispatcher.counters.shed == 0


async def test_a_tenant_drops_nobody_to_exceed_its_quota() -> None:
    queue = Queue(max_waiting=2, max_waiting_per_tenant=1, shed=True)
    queue.submit("a", 5, tenant="one")
    queue.submit("b", 5, tenant="two")
    with pytest.raises(QuotaExceeded):
        queue.submit("c", 0, tenant="two")
    assert queue.waiting == ["a", "b"]


def moving(**settings: object) -> Queue:
    """A queue that starts a request a second; five wait."""
    queue = Queue(**settings)
    for n in range(10):
        queue.submit(f"r{n}")
    for _ in range(5):
        queue.now_s += 1.0
        assert queue.start()
    return queue


async def test_who_would_start_after_its_deadline_is_refused_at_once() -> None:
    queue = moving(refuse_late=True)
    queue.submit("late", deadline_ms=2000)
    queue.submit("in time", deadline_ms=60_000)
    queue.submit("at leisure")
    assert await queue.failures(DeadlineUnreachable) == ["late"]
    assert queue.dispatcher.counters.expired == 1
    queue.dispatcher.scheduler.check_integrity()


async def test_without_it_everybody_may_try() -> None:
    queue = moving()
    queue.submit("late", deadline_ms=2000)
    assert await queue.failures(DeadlineUnreachable) == []


async def test_nobody_is_refused_on_a_guess() -> None:
    queue = Queue(refuse_late=True)
    for n in range(10):
        queue.submit(f"r{n}", deadline_ms=1)
    assert await queue.failures(DeadlineUnreachable) == []
