"""Every public operation of the scheduler in any order, under all settings, on an engine that is not there.

Whatever happens, each request is where it was put: it waits, runs, or has ended, and nothing else has moved.
"""

import math
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.requests import make_request
from support.scheduling_strategies import ANY_POLICY, FAIR_SHARES, starvation_settings

from rankserve.server.scheduling.budget import EngineRoom, blocks_for
from rankserve.server.scheduling.by_model import AnyScheduler, Schedulers
from rankserve.server.scheduling.policies import Policy
from rankserve.server.scheduling.preemption import Preemption
from rankserve.server.scheduling.request import Phase, Request
from rankserve.server.scheduling.reservation import KvReservation
from rankserve.server.scheduling.scheduler import Scheduler, SchedulerSettings

BLOCK_SIZE = 4
MAX_TOKENS = 30

SETTINGS = st.builds(
    SchedulerSettings,
    starvation=starvation_settings([1, 4], [0.5, 3.0, 20.0]),
    fair_share=FAIR_SHARES,
    preemption=st.builds(
        Preemption,
        enabled=st.booleans(),
        margin=st.sampled_from([0.0, 1.0]),
        restart_steps_per_token=st.sampled_from([0.0, 1 / 64]),
    ),
    kv_reservation=st.sampled_from(KvReservation),
)
PREDICTIONS = st.tuples(st.integers(-3, 3).map(float), st.integers(0, 40).map(float), st.integers(0, 60))
WHICH = st.integers(0, 10**6)


def predict(score: float, median: float, more: int) -> tuple[float, float, float]:
    return score, median, median + more


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(policy=ANY_POLICY, settings=SETTINGS, models=st.sampled_from([None, ("",), ("", "x")]))
    def start(self, policy: Policy, settings: SchedulerSettings, models: tuple[str, ...] | None) -> None:
        kind: Any = Scheduler if models is None else Schedulers
        self.scheduler: AnyScheduler = kind(policy, settings)
        self.models = models or ("",)
        self.now_s, self.count, self.ended = 0.0, 0, 0
        self.waiting: dict[str, Request] = {}
        self.running: dict[str, Request] = {}

    # What clients and the ranker do

    @rule(
        prompt_tokens=st.integers(1, 40),
        priority=st.integers(-1, 1),
        tenant=st.sampled_from(["", "a", "b", "c"]),
        model=st.integers(0, 1),
        prediction=st.none() | PREDICTIONS,
        late_s=st.sampled_from([0.0, 0.0, 1.5]),
        deadline_s=st.none() | st.sampled_from([0.5, 4.0, 30.0]),
        answer=st.none() | st.integers(1, 2 * MAX_TOKENS),
        count=st.integers(1, 8),
    )
    def submit(
        self,
        prompt_tokens: int,
        priority: int,
        tenant: str,
        model: int,
        prediction: tuple[float, float, int] | None,
        late_s: float,
        deadline_s: float | None,
        answer: int | None,
        count: int,
    ) -> None:
        for _ in range(count):
            request = self.new(
                arrival_s=self.now_s - late_s,
                prompt_tokens=prompt_tokens,
                priority=priority,
                tenant=tenant,
                model=self.models[model % len(self.models)],
                deadline_s=None if deadline_s is None else self.now_s + deadline_s,
                replay_output_tokens=answer,
            )
            if prediction is not None:
                request.score, request.expected_tokens, request.expected_tokens_p90 = predict(*prediction)
            self.scheduler.submit(request)
            self.waiting[request.id] = request

    @rule()
    def submit_without_a_score_that_is_a_number(self) -> None:
        request = self.new(score=math.nan)
        try:
            self.scheduler.submit(request)
        except ValueError:
            assert request.phase is Phase.NEW
            self.ended += 1
        else:
            self.waiting[request.id] = request

    @precondition(lambda self: self.waiting or self.running)
    @rule(which=WHICH)
    def submit_again(self, which: int) -> None:
        try:
            self.scheduler.submit(self.pick(self.waiting | self.running, which))
        except ValueError:
            return
        raise AssertionError("it was submitted twice")

    @precondition(lambda self: self.waiting or self.running)
    @rule(which=WHICH, count=st.integers(1, 20))
    def cancel(self, which: int, count: int) -> None:
        for _ in range(min(count, len(self.waiting | self.running))):
            self.end(self.pick(self.waiting | self.running, which))

    @rule()
    def end_what_was_never_submitted(self) -> None:
        request = self.new()
        self.scheduler.end(request)
        self.ended += 1
        assert request.phase is Phase.ENDED

    @precondition(lambda self: self.waiting or self.running)
    @rule(which=WHICH, prediction=PREDICTIONS)
    def rescore_one(self, which: int, prediction: tuple[float, float, int]) -> None:
        self.scheduler.rescore([(self.pick(self.waiting | self.running, which), *predict(*prediction))])

    @rule(predictions=st.lists(PREDICTIONS, min_size=1, max_size=5), times=st.integers(1, 3))
    def rescore_all(self, predictions: list[tuple[float, float, int]], times: int) -> None:
        live = list((self.waiting | self.running).values())
        for turn in range(times):
            of = [predictions[(turn + number) % len(predictions)] for number in range(len(live))]
            self.scheduler.rescore((r, *predict(*p)) for r, p in zip(live, of, strict=True))

    @rule(policy=ANY_POLICY)
    def set_policy(self, policy: Policy) -> None:
        before = self.scheduler.policy
        no_key = any(math.isnan(policy.key(r)) for r in self.waiting.values())
        try:
            self.scheduler.set_policy(policy, self.now_s)
        except ValueError:
            assert no_key
            assert self.scheduler.policy is before
        else:
            assert not no_key
            assert self.scheduler.policy is policy

    # What the engine does

    @rule(
        sequences=st.integers(0, 6),
        batched_tokens=st.integers(0, 100),
        kv_blocks=st.integers(0, 40),
        kv_blocks_reserved=st.integers(0, 4),
        kv_blocks_shared=st.integers(0, 1),
        model=st.integers(0, 1),
    )
    def plan(self, model: int, **fields: int) -> None:
        room = EngineRoom(**fields, block_size=BLOCK_SIZE, model=self.models[model % len(self.models)])
        held = {r.id: r.kv_tokens for r in self.running.values()}
        following = [r for r in self.scheduler.next_requests(self.now_s, 10**6) if r.model == room.model]
        plan = self.scheduler.plan(self.now_s, room)
        for request in plan.evicted:
            self.stops(request)
        for request in plan.started:
            assert self.waiting.pop(request.id) is request
            self.running[request.id] = request
            request.kv_tokens, request.decoding = request.prefix_tokens, True
        assert all(r.model == room.model for r in plan.started + plan.evicted)
        assert all(a.priority <= b.priority for a, b in pairwise(plan.started))
        assert len(plan.started) <= room.sequences + len(plan.evicted)
        assert len(plan.evicted) <= len(plan.started)
        assert self.scheduler.settings.preemption.enabled or not plan.evicted

        def blocks(tokens: int) -> int:
            return max(0, blocks_for(tokens, BLOCK_SIZE) - room.kv_blocks_shared)

        free = room.kv_blocks - room.kv_blocks_reserved + sum(blocks(held[r.id]) for r in plan.evicted)
        assert not plan.started or sum(blocks(r.prefix_tokens) for r in plan.started) <= free
        if not plan.evicted and self.scheduler.policy.bound is None:
            assert plan.started == following[: len(plan.started)]

    @rule()
    def select_victim(self) -> None:
        mine = [r for r in self.running.values() if r.model == ""]
        worst = max((r.priority for r in mine), default=0)
        victim = self.scheduler.select_victim(self.now_s)
        assert (victim is None) == (len(mine) < 2)
        if victim is not None:
            assert victim.priority == worst
            self.stops(victim)

    @precondition(lambda self: self.running)
    @rule(which=WHICH)
    def put_back(self, which: int) -> None:
        request = self.pick(self.running, which)
        self.scheduler.put_back(request)
        self.stops(request)

    @precondition(lambda self: self.running)
    @rule(tokens=st.integers(1, MAX_TOKENS), most=st.integers(1, 4))
    def step(self, tokens: int, most: int) -> None:
        for request in list(self.running.values())[:most]:
            self.produce(request, tokens)
        self.scheduler.step_done()

    # What time does

    @rule(seconds=st.sampled_from([0.25, 1.0, 6.0]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def expire(self) -> None:
        live = (self.waiting | self.running).values()
        late = {r.id for r in live if r.deadline_s is not None and r.deadline_s <= self.now_s}
        expired = self.scheduler.expired(self.now_s)
        assert {request.id for request in expired} == late
        for request in expired:
            self.end(request)

    @invariant()
    def everybody_is_where_they_were_put(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        scheduler = self.scheduler
        scheduler.check_integrity()
        assert {r.id: r for r in scheduler.waiting_requests()} == self.waiting
        assert {r.id: r for r in scheduler.running_requests(10**6)} == self.running
        assert (scheduler.waiting, scheduler.running) == (len(self.waiting), len(self.running))
        assert self.count == self.ended + len(self.waiting) + len(self.running)
        assert all(r.phase is Phase.WAITING for r in self.waiting.values())
        assert all(r.phase is Phase.RUNNING for r in self.running.values())
        live = (self.waiting | self.running).values()
        deadlines = [r.deadline_s for r in live if r.deadline_s is not None]
        assert scheduler.next_deadline_s() == min(deadlines, default=None)
        last = scheduler.last_waiting()
        assert (last is None) == (not self.waiting)
        assert last is None or last.priority == max(r.priority for r in self.waiting.values())
        following = scheduler.next_requests(self.now_s, 5)
        assert len({r.id for r in following}) == min(5, len(self.waiting))
        for model in self.models:
            mine = [r for r in self.waiting.values() if r.model == model]
            assert scheduler.waiting_for(model) == len(mine)
            places = sorted(scheduler.place(r, self.now_s) for r in mine[:20])
            assert len(mine) > 20 or places == list(range(len(mine)))

    def teardown(self) -> None:
        """All that is left is served to its end."""
        if not hasattr(self, "scheduler"):
            return
        for model in self.models:
            while self.scheduler.waiting_for(model) or any(r.model == model for r in self.running.values()):
                for request in [r for r in self.running.values() if r.model == model]:
                    self.produce(request, MAX_TOKENS)
                self.plan(**PLENTY, model=self.models.index(model))
        assert self.ended == self.count
        self.everybody_is_where_they_were_put()

    def new(self, **fields: object) -> Request:
        self.count += 1
        return make_request(f"r{self.count}", **{"arrival_s": self.now_s, "max_tokens": MAX_TOKENS, **fields})

    @staticmethod
    def pick(among: dict[str, Request], which: int) -> Request:
        return list(among.values())[which % len(among)]

    def stops(self, request: Request) -> None:
        """A request that ran waits again."""
        del self.running[request.id]
        self.waiting[request.id] = request
        request.kv_tokens, request.decoding = 0, False

    def end(self, request: Request, *, finished: bool = False) -> None:
        self.scheduler.end(request, finished=finished)
        (self.running if request.id in self.running else self.waiting).pop(request.id)
        self.ended += 1

    def produce(self, request: Request, tokens: int) -> None:
        count = min(tokens, request.true_output_tokens - request.output_tokens)
        request.output_tokens += count
        request.kv_tokens += count
        self.scheduler.produced(request, count)
        if request.output_tokens == request.true_output_tokens:
            self.end(request, finished=True)


PLENTY = {
    "sequences": 10**6,
    "batched_tokens": 10**6,
    "kv_blocks": 10**6,
    "kv_blocks_reserved": 0,
    "kv_blocks_shared": 0,
}

TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=30)
