"""The dispatcher with a ranker that the test paces: a slow ranker must harm no promise."""

import asyncio
from dataclasses import replace
from typing import cast

import pytest

from rankserve.server.dispatcher import Dispatcher
from rankserve.server.engines.contract import Engine, EngineCapacity
from rankserve.server.events import Event, EventStream, Failed, Queued
from rankserve.server.ranking.ranker import PromptScore, Ranker
from rankserve.server.requests import RequestSpec
from rankserve.server.rpc.messages import request_state
from rankserve.server.scheduling.budget import EngineRoom
from rankserve.server.scheduling.policies import Policy, Ranking, make_policy
from rankserve.server.scheduling.preemption import Preemption
from rankserve.server.scheduling.scheduler import Scheduler, SchedulerSettings
from rankserve.server.scheduling.starvation import StarvationSettings
from rankserve.server.settings import ServerSettings
from rankserve.v1 import scheduler_pb2 as pb

ONE = EngineRoom(sequences=1, batched_tokens=2048, kv_blocks=1000)
FULL_BUT_FOR_TOKENS = EngineRoom(sequences=0, batched_tokens=9, kv_blocks=100)


class PacedRanker:
    """A ranker, and its only version, that scores when the test says so. The score is the prompt's number."""

    def __init__(self) -> None:
        self.active = self
        self.scores = True
        self.neutral_total = 0
        self._asked: dict[str, asyncio.Future[float]] = {}

    def submit(self, text: str) -> asyncio.Future[float]:
        self._asked[text] = asyncio.get_running_loop().create_future()
        return self._asked[text]

    def read(self, version: object, score: float) -> PromptScore:
        return PromptScore(score, "toy/1", None, None)

    async def answer(self, *texts: str) -> None:
        for text in texts:
            self._asked[text].set_result(float(text))
        await settle()

    async def fail(self, text: str) -> None:
        self._asked[text].set_exception(RuntimeError("a fault of the ranker"))
        await settle()


class IdleEngine:
    name = "idle"
    models = ("idle",)
    time_scale = 1.0
    capacity = EngineCapacity(max_sequences=1, max_batched_tokens=2048, max_model_len=4096, kv_blocks=1000)

    def count_tokens(self, prompt: str) -> int:
        return len(prompt)

    def wake(self) -> None: ...

    def evict(self, request: object) -> None: ...


class Setup:
    def __init__(
        self,
        policy: Policy,
        starvation: StarvationSettings | None = None,
        preemption: Preemption | None = None,
        gather_ms: float = 0.0,
    ) -> None:
        self.now_s = 0.0
        self.ranker = PacedRanker()
        self.stream = EventStream()
        self.dispatcher = Dispatcher(
            Scheduler(
                policy,
                SchedulerSettings(starvation or StarvationSettings(), preemption=preemption or Preemption()),
            ),
            cast(Engine, IdleEngine()),
            cast(Ranker, self.ranker),
            ServerSettings(gather_ms=gather_ms),
            clock=lambda: self.now_s,
        )

    async def submit(self, *names: str) -> None:
        """Prompts are numbers: the score that the ranker gives when asked to answer."""
        for name in names:
            self.dispatcher.submit(spec(name), self.stream)
        await settle()

    def start(self) -> str | None:
        """Starts the next request, which ends at once. None if none would start."""
        assignments = self.dispatcher.plan(ONE).starting
        if not assignments:
            return None
        self.dispatcher.scheduler.end(assignments[0].request)
        return assignments[0].request.id

    async def events(self) -> list[Event]:
        return await self.stream.take()


def spec(name: str) -> RequestSpec:
    return RequestSpec(id=name, fingerprint=b"", size_bytes=len(name), prompt=name, ranking_text=name)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_fcfs_is_the_order_of_arrival_whatever_the_ranker_does() -> None:
    setup = Setup(make_policy("fcfs"))
    await setup.submit("1", "2", "3", "4")
    await setup.ranker.answer("4", "3")
    assert [setup.start() for _ in range(4)] == ["1", "2", "3", "4"]


async def test_a_request_without_a_score_waits_behind_those_that_have_one() -> None:
    setup = Setup(Ranking())
    await setup.submit("1", "2", "3")
    await setup.ranker.answer("2", "3")
    assert [setup.start() for _ in range(2)] == ["3", "2"]
    assert setup.start() == "1", "an engine with room waits for no ranker"


async def test_the_wait_bound_holds_while_the_ranker_hangs() -> None:
    setup = Setup(Ranking(), StarvationSettings(max_wait_s=10.0))
    await setup.submit("1")
    setup.now_s = 9.0
    await setup.submit("2", "3")
    await setup.ranker.answer("2", "3")
    setup.now_s = 10.0
    assert [setup.start() for _ in range(3)] == ["1", "3", "2"]


async def test_queued_is_told_once_when_scored_or_when_started() -> None:
    setup = Setup(Ranking())
    await setup.submit("1", "2")
    await setup.ranker.answer("2")
    assert setup.start() == "2"
    assert setup.start() == "1"
    queued = [event for event in await setup.events() if isinstance(event, Queued)]
    assert [(q.request_id, q.score, q.ranker_version) for q in queued] == [
        ("2", 2.0, "toy/1"),
        ("1", 0.0, ""),
    ]


async def test_state_and_counts_tell_what_is_not_scored_yet() -> None:
    setup = Setup(Ranking())
    await setup.submit("1", "2")
    await setup.ranker.answer("2")
    dispatcher = setup.dispatcher
    assert (dispatcher.scoring.pending, dispatcher.scheduler.waiting) == (1, 2)
    assert request_state(dispatcher.find("1")).state == pb.REQUEST_STATE_ACCEPTED
    assert request_state(dispatcher.find("2")).state == pb.REQUEST_STATE_WAITING


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_fault_of_the_ranker_ends_that_request_alone() -> None:
    setup = Setup(Ranking())
    await setup.submit("1", "2")
    await setup.ranker.fail("1")
    await setup.ranker.answer("2")
    failed = [event.request_id for event in await setup.events() if isinstance(event, Failed)]
    assert failed == ["1"]
    assert setup.start() == "2"


async def test_a_policy_that_gives_no_number_fails_the_request_and_drains() -> None:
    class Nowhere(Ranking):
        def key(self, request: object) -> float:
            return float("nan")

    setup = Setup(Nowhere())
    await setup.submit("1")
    assert [type(event) for event in await setup.events()][-1] is Failed
    await setup.dispatcher.drain(1.0)
    setup.dispatcher.scheduler.check_integrity()


async def test_estimated_waits_forget_the_time_without_a_queue() -> None:
    setup = Setup(make_policy("fcfs"))
    await setup.submit("1")
    setup.start()
    setup.now_s = 3600.0
    await setup.submit(*(str(number) for number in range(2, 8)))
    for _ in range(3):
        setup.now_s += 1.0
        setup.start()
    await setup.events()
    await setup.submit("8")
    await setup.ranker.answer("8")
    (queued,) = [event for event in await setup.events() if isinstance(event, Queued)]
    assert queued.place == 3
    assert queued.estimated_wait_s == pytest.approx(4.0, rel=0.5)


@pytest.mark.parametrize("cancel", [True, False])
async def test_what_ends_before_it_is_scored_leaves_nothing_behind(cancel: bool) -> None:
    setup = Setup(Ranking())
    await setup.submit("1")
    if cancel:
        setup.dispatcher.cancel("1")
    else:
        setup.dispatcher.stream_lost(setup.stream)
    await setup.ranker.answer()
    dispatcher = setup.dispatcher
    assert (dispatcher.scoring.pending, dispatcher.scheduler.waiting) == (0, 0)
    assert not dispatcher.live_requests()
    assert setup.start() is None


async def test_an_evicted_request_counts_as_queued_again_and_is_told_nothing_twice() -> None:
    """The limit on waiting bytes sees it, and its client gets one Queued event."""
    setup = Setup(make_policy("mlfq"), preemption=Preemption(enabled=True))
    await setup.submit("1")
    await setup.ranker.answer("1")
    (running,) = setup.dispatcher.plan(ONE).starting
    running.request.output_tokens, running.request.decoding = 500, True
    await setup.submit("2")
    await setup.ranker.answer("2")
    plan = setup.dispatcher.plan(FULL_BUT_FOR_TOKENS)
    assert [request.id for request in plan.evicted] == ["1"]
    assert [assignment.request.id for assignment in plan.starting] == ["2"]
    assert setup.dispatcher.admission.waiting_bytes == len("1")
    setup.dispatcher.cancel("1")
    assert setup.dispatcher.admission.waiting_bytes == 0
    queued = [event.request_id for event in await setup.events() if isinstance(event, Queued)]
    assert sorted(queued) == ["1", "2"]


async def test_the_tenant_of_a_request_is_who_it_is_charged_to() -> None:
    setup = Setup(make_policy("fcfs"))
    for name, tenant in (("1", "a"), ("2", "a"), ("3", "a"), ("4", "b")):
        setup.dispatcher.submit(replace(spec(name), tenant=tenant), setup.stream)
    await settle()
    assert [setup.start() for _ in range(4)] == ["1", "4", "2", "3"]


async def test_with_a_moment_to_gather_the_best_of_a_burst_starts_and_not_the_first() -> None:
    setup = Setup(Ranking(), gather_ms=50)
    await setup.submit("1")
    assert setup.start() is None
    setup.now_s += 0.04
    await setup.submit("3", "2")
    await setup.ranker.answer("1", "3", "2")
    assert setup.start() is None
    setup.now_s += 0.02
    assert [setup.start() for _ in range(3)] == ["3", "2", "1"]


async def test_where_a_queue_stands_nobody_waits_for_others() -> None:
    setup = Setup(Ranking(), gather_ms=50)
    await setup.submit("1", "2")
    setup.now_s += 0.06
    await setup.submit("3")
    await setup.ranker.answer("1", "2", "3")
    assert setup.start() == "3"
