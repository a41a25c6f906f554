"""Whatever happens, nothing is lost or served twice and bounds are kept: hypothesis drives the real parts."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.requests import make_profile, make_request
from support.virtual_time import VirtualServer

from rankserve.server.engines.simulated.batch import SimulatedBatch
from rankserve.server.scheduling.policies import make_policy
from rankserve.server.scheduling.request import Phase, Request
from rankserve.server.scheduling.scheduler import Scheduler
from rankserve.server.scheduling.starvation import StarvationSettings

KV_BLOCKS = 8
BLOCK_SIZE = 16
MAX_MODEL_LEN = 96


class ServerMachine(RuleBasedStateMachine):
    """Submits, steps, cancels, expires and re-scores on an LLM with so few KV blocks that it preempts."""

    @initialize(
        policy=st.sampled_from(["fcfs", "ranking", "aged_ranking", "sjf"]),
        threshold_steps=st.sampled_from([0, 0, 4]),
        max_wait_s=st.sampled_from([None, 2.0, 5.0, 20.0]),
        max_sequences=st.integers(1, 4),
        max_batched_tokens=st.sampled_from([6, 24, 200]),
    )
    def start(
        self,
        policy: str,
        threshold_steps: int,
        max_wait_s: float | None,
        max_sequences: int,
        max_batched_tokens: int,
    ) -> None:
        self.starvation = StarvationSettings(threshold_steps, quantum_steps=3, max_wait_s=max_wait_s)
        profile = make_profile(
            kv_blocks=KV_BLOCKS,
            max_model_len=MAX_MODEL_LEN,
            max_sequences=max_sequences,
            max_batched_tokens=max_batched_tokens,
        )
        self.server = VirtualServer(Scheduler(make_policy(policy), self.starvation), SimulatedBatch(profile))
        self.live: dict[str, Request] = {}
        self.finished: set[str] = set()
        self.ended_early: set[str] = set()

    @rule(
        prompt_tokens=st.integers(1, 60),
        answer=st.integers(1, 36),
        priority=st.integers(-1, 1),
        score=st.integers(-3, 3),
        deadline=st.none() | st.floats(0.5, 30.0),
        count=st.integers(1, 8),
    )
    def submit(
        self, prompt_tokens: int, answer: int, priority: int, score: int, deadline: float | None, count: int
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
                expected_tokens=float(30 - score),
                replay_output_tokens=answer,
                deadline_s=None if deadline is None else now_s + deadline,
            )
            self.live[request.id] = request
            self.server.submit([request])

    @rule(count=st.integers(1, 12))
    def step(self, count: int) -> None:
        for _ in range(count):
            self._expire()
            due_before = self._due()
            started_before = len(self.server.started)
            queued_before = {r.id for r in self.server.scheduler.waiting_in_order()}
            produced = self.server.step()
            started = [i for i in self.server.started[started_before:] if i in queued_before]
            self._check_order(started, due_before)
            for tokens in produced:
                assert tokens.request.id in self.live, "served after its end"
                if tokens.finished:
                    request = self.live.pop(tokens.request.id)
                    assert request.output_tokens == min(request.replay_output_tokens or 0, 36)
                    assert self.server.tokens[request.id] == request.output_tokens
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
        self.server.scheduler.rescore([(r, offset - r.score, r.expected_tokens + offset) for r in live])

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
        waiting = server.scheduler.waiting_in_order()
        assert [server.scheduler.place(r) for r in waiting] == list(range(len(waiting)))

    def teardown(self) -> None:
        """Whatever was left is served to its end: nothing was lost and nothing is stuck."""
        if not hasattr(self, "server"):
            return
        for _ in range(10_000):
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

    def _due(self) -> dict[str, float]:
        """Waiting requests whose bound in time is due at the coming plan, and since when."""
        bound_s = self.starvation.max_wait_s
        if bound_s is None:
            return {}
        return {
            r.id: r.waiting_since_s + bound_s
            for r in self.server.scheduler.waiting_in_order()
            if r.waiting_since_s + bound_s <= self.server.now_s
        }

    def _check_order(self, started: list[str], due: dict[str, float]) -> None:
        """While a due request of a band waits, only earlier-due ones of that band start before it."""
        requests = {r.id: r for r in self.server.scheduler.waiting_in_order()} | self.live
        for position, identifier in enumerate(started):
            band = requests[identifier].priority
            earlier = set(started[:position])
            for other, due_s in due.items():
                if other == identifier or other in earlier or requests[other].priority != band:
                    continue
                if other in started or requests[other].phase is Phase.WAITING:
                    # A count in steps promotes too; its moment is at the latest that of the plan.
                    promoted_s = due.get(identifier, requests[identifier].due_s)
                    assert promoted_s is not None, f"{identifier} started before {other}, which was due"
                    assert promoted_s <= due_s, f"{identifier} was due after {other} and started before it"


TestServer = ServerMachine.TestCase
TestServer.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
