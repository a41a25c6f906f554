"""Whatever happens, nothing is lost or served twice and bounds are kept: hypothesis drives the real parts."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.requests import make_profile, make_request

from rankserve.server.engines.simulated.batch import SimulatedBatch
from rankserve.server.scheduling.fair_share import FairShare
from rankserve.server.scheduling.policies import BUILT_IN, make_policy
from rankserve.server.scheduling.preemption import Preemption
from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.reservation import KvReservation
from rankserve.server.scheduling.scheduler import Scheduler, SchedulerSettings
from rankserve.server.scheduling.starvation import StarvationSettings
from rankserve.server.simulation.virtual_server import VirtualServer

KV_BLOCKS = 8
BLOCK_SIZE = 16
MAX_MODEL_LEN = 96


class ServerMachine(RuleBasedStateMachine):
    """Submits, steps, cancels, expires and re-scores on an LLM with so few KV blocks that it preempts."""

    @initialize(
        policy=st.sampled_from(list(BUILT_IN)),
        threshold_steps=st.sampled_from([0, 0, 4]),
        max_wait_s=st.sampled_from([None, 2.0, 5.0, 20.0]),
        max_sequences=st.integers(1, 4),
        max_batched_tokens=st.sampled_from([6, 24, 200]),
        preemption=st.sampled_from(["off", "recompute", "swap"]),
        margin=st.sampled_from([0.0, 1.0]),
        reservation=st.sampled_from(list(KvReservation)),
        fair_share=st.booleans(),
        shared_blocks=st.integers(0, 1),
        prefix_caching=st.booleans(),
    )
    def start(
        self,
        policy: str,
        threshold_steps: int,
        max_wait_s: float | None,
        max_sequences: int,
        max_batched_tokens: int,
        preemption: str,
        margin: float,
        reservation: KvReservation,
        fair_share: bool,
        shared_blocks: int,
        prefix_caching: bool,
    ) -> None:
        self.starvation = StarvationSettings(threshold_steps, quantum_steps=3, max_wait_s=max_wait_s)
        profile = make_profile(
            kv_blocks=KV_BLOCKS,
            max_model_len=MAX_MODEL_LEN,
            max_sequences=max_sequences,
            max_batched_tokens=max_batched_tokens,
            shared_prefix_tokens=shared_blocks * BLOCK_SIZE,
            prefix_caching=prefix_caching,
            swap_ms_per_token=1.0,
        )
        settings = SchedulerSettings(
            starvation=self.starvation,
            fair_share=FairShare(enabled=fair_share),
            preemption=Preemption(enabled=preemption != "off", margin=margin, restart_steps_per_token=1 / 64),
            kv_reservation=reservation,
        )
        batch = SimulatedBatch(profile, swaps=preemption == "swap")
        self.server = VirtualServer(Scheduler(make_policy(policy), settings), batch)
        self.may_run_out = reservation is not KvReservation.MAX
        self.live: dict[str, Request] = {}
        self.finished: set[str] = set()
        self.ended_early: set[str] = set()

    @rule(
        prompt_tokens=st.integers(1, 60),
        answer=st.integers(1, 36),
        priority=st.integers(-1, 1),
        score=st.integers(-3, 3),
        tenant=st.sampled_from(["", "a", "b"]),
        deadline=st.none() | st.floats(0.5, 30.0),
        count=st.integers(1, 8),
    )
    def submit(
        self,
        prompt_tokens: int,
        answer: int,
        priority: int,
        score: int,
        tenant: str,
        deadline: float | None,
        count: int,
    ) -> None:
        for _ in range(count):
            now_s = self.server.now_s
            request = make_request(
                f"r{len(self.live) + len(self.finished) + len(self.ended_early)}",
                arrival_s=now_s,
                prompt_tokens=prompt_tokens,
                max_tokens=36,
                priority=priority,
                score=float(score),
                expected_tokens=float(30 - 5 * score),
                expected_tokens_p90=float(40 - 5 * score),
                tenant=tenant,
                replay_output_tokens=answer,
                deadline_s=None if deadline is None else now_s + deadline,
            )
            self.live[request.id] = request
            self.server.submit([request])

    @rule(count=st.integers(1, 12))
    def step(self, count: int) -> None:
        for _ in range(count):
            self._expire()
            scheduler = self.server.scheduler
            waiting = {r.id: r.waiting_since_s for r in scheduler.waiting_requests()}
            now_s, started_before = self.server.now_s, len(self.server.started)
            produced = self.server.step()
            self._check_order(self.server.started[started_before:], waiting, now_s)
            for tokens in produced:
                assert tokens.request.id in self.live, "served after its end"
                if tokens.finished:
                    request = self.live.pop(tokens.request.id)
                    assert request.output_tokens == min(request.replay_output_tokens or 0, 36)
                    self.finished.add(request.id)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request = self.live.pop(data.draw(st.sampled_from(sorted(self.live))))
        self.server.end(request)
        self.ended_early.add(request.id)

    @precondition(lambda self: self.live)
    @rule(offset=st.integers(-4, 4))
    def rescore(self, offset: int) -> None:
        live = list(self.live.values())
        self.server.scheduler.rescore(
            [(r, offset - r.score, r.expected_tokens + offset, r.expected_tokens_p90) for r in live]
        )

    @rule(policy=st.sampled_from(list(BUILT_IN)))
    def set_policy(self, policy: str) -> None:
        scheduler = self.server.scheduler
        waiting = {request.id for request in scheduler.waiting_requests()}
        scheduler.set_policy(make_policy(policy), self.server.now_s)
        assert scheduler.policy.name == policy
        assert {request.id for request in scheduler.waiting_requests()} == waiting

    @invariant()
    def books_balance(self) -> None:
        if not hasattr(self, "server"):
            return
        server = self.server
        server.scheduler.check_integrity()
        server.batch.kv.check_integrity()
        assert server.scheduler.running == len(server.batch)
        assert server.scheduler.waiting + server.scheduler.running == len(self.live)
        assert len(server.batch) <= server.batch.profile.max_sequences
        if not server.scheduler.running:
            assert server.batch.kv.used == 0
        waiting = server.scheduler.waiting_requests()
        last = server.scheduler.last_waiting()
        assert (last is None) == (not waiting)
        assert last is None or (last in waiting and last.priority == max(r.priority for r in waiting))
        if len(waiting) <= 16:
            places = [server.scheduler.place(r, server.now_s) for r in waiting]
            assert sorted(places) == list(range(len(waiting)))
        held = sum(server.batch.kv.own_blocks(r.kv_tokens) for r in self.live.values())
        assert held == server.batch.kv.used
        assert all(r.kv_tokens == 0 and not r.decoding for r in waiting)

    def teardown(self) -> None:
        """Whatever was left is served to its end: nothing was lost and nothing is stuck."""
        if not hasattr(self, "server"):
            return
        for _ in range(2_000 + 200 * len(self.live)):
            if not self.live:
                break
            self.step(1)
        assert not self.live
        self.books_balance()

    def _expire(self) -> None:
        for request in self.server.scheduler.expired(self.server.now_s):
            assert request.deadline_s is not None
            assert request.deadline_s <= self.server.now_s
            self.server.end(request)
            self.ended_early.add(self.live.pop(request.id).id)

    def _check_order(self, started: list[str], waiting: dict[str, float], now_s: float) -> None:
        """Better bands first; while a due request of a band waits, only more urgent ones start before it."""
        bound_s = self.starvation.max_wait_s
        remaining = dict(waiting)
        for identifier in started:
            if identifier not in waiting:
                continue  # Evicted in this very plan.
            priority = self.live[identifier].priority
            for other, urgency_s in remaining.items():
                assert self.live[other].priority >= priority, f"{identifier} overtook the band of {other}"
                if bound_s is not None and self.live[other].priority == priority:
                    due = now_s - urgency_s >= bound_s
                    assert not due or waiting[identifier] <= urgency_s, f"{identifier} overtook {other}"
            remaining.pop(identifier, None)


TestServer = ServerMachine.TestCase
TestServer.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
