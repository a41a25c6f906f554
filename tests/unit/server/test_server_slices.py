"""What concerns thousands of requests leaves the event loop its turns."""

import asyncio
from collections.abc import Callable
from typing import cast

from support.paced_journal import ONE, IdleEngine, IdleRanker

from rankserve.server.dispatcher import Dispatcher
from rankserve.server.engines.contract import Engine
from rankserve.server.events import EventStream
from rankserve.server.ranking.ranker import Ranker
from rankserve.server.requests import RequestSpec
from rankserve.server.scheduling.policies import make_policy
from rankserve.server.scheduling.scheduler import Scheduler
from rankserve.server.settings import ServerSettings
from rankserve.server.slices import AT_ONCE, in_slices

COUNT = 10 * AT_ONCE


class Crowd:
    """So many requests that wait, on a clock that the test sets."""

    def __init__(self, deadline_ms: int = 0) -> None:
        self.now_s = 0.0
        self.stream = EventStream()
        self.dispatcher = Dispatcher(
            Scheduler(make_policy("fcfs")),
            cast(Engine, IdleEngine(max_sequences=1)),
            cast(Ranker, IdleRanker()),
            ServerSettings(retain_s=10.0),
            clock=lambda: self.now_s,
        )
        for number in range(COUNT):
            spec = RequestSpec(str(number), b"", 1, "p", "p", deadline_ms=deadline_ms)
            self.dispatcher.submit(spec, self.stream)

    async def most_in_a_turn(self, counted: Callable[[], int], until: int) -> int:
        """How much a number changes in a turn of the event loop at the most, until it has a value."""
        most, before = 0, counted()
        while before != until:
            await asyncio.sleep(0)
            most, before = max(most, abs(counted() - before)), counted()
        return most

    @property
    def live(self) -> int:
        return len(self.dispatcher.registry.live)


async def test_slices_hold_everything_in_order() -> None:
    slices = [some async for some in in_slices(range(2 * AT_ONCE + 1))]
    assert list(map(len, slices)) == [AT_ONCE, AT_ONCE, 1]
    assert [item for some in slices for item in some] == list(range(2 * AT_ONCE + 1))


async def test_thousands_that_expire_together_end_in_slices_and_nobody_starts_before() -> None:
    crowd = Crowd(deadline_ms=1000)
    crowd.now_s = 2.0
    assert crowd.dispatcher.plan(ONE).starting == ()
    assert crowd.live == COUNT - AT_ONCE
    assert await crowd.most_in_a_turn(lambda: crowd.live, 0) <= AT_ONCE
    assert crowd.dispatcher.counters.expired == COUNT


async def test_a_lost_stream_ends_thousands_in_slices() -> None:
    crowd = Crowd()
    crowd.dispatcher.stream_lost(crowd.stream)
    assert await crowd.most_in_a_turn(lambda: crowd.live, 0) <= AT_ONCE


async def test_a_drain_ends_thousands_in_slices_and_starts_none_of_them() -> None:
    crowd = Crowd()
    draining = asyncio.create_task(crowd.dispatcher.drain(timeout_s=1.0))
    while crowd.live == COUNT:
        await asyncio.sleep(0)
    assert crowd.dispatcher.plan(ONE).starting == ()
    assert await crowd.most_in_a_turn(lambda: crowd.live, 0) <= AT_ONCE
    await draining


async def test_thousands_are_forgotten_in_slices() -> None:
    crowd = Crowd()
    crowd.dispatcher.stream_lost(crowd.stream)
    await crowd.most_in_a_turn(lambda: crowd.live, 0)
    ended = crowd.dispatcher.registry.ended
    assert len(ended) == COUNT
    crowd.now_s = 20.0
    assert await crowd.most_in_a_turn(lambda: len(ended), 0) <= AT_ONCE


async def test_nobody_starts_while_the_whole_queue_changes() -> None:
    crowd = Crowd()
    with crowd.dispatcher.no_starts():
        assert crowd.dispatcher.plan(ONE).starting == ()
    assert len(crowd.dispatcher.plan(ONE).starting) == 1
