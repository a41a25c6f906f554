"""The real scheduler and the real simulated batch in virtual time, one step after the other."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rankserve.server.engines.contract import TokensProduced
from rankserve.server.engines.simulated.answers import output_length
from rankserve.server.engines.simulated.batch import SimulatedBatch
from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.scheduler import Scheduler


@dataclass(slots=True)
class RequestTiming:
    """When what happened to a request, in virtual seconds; None until it has."""

    scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    end_s: float | None = None
    max_token_gap_s: float = 0.0


class VirtualServer:
    """One scheduler with one simulated LLM; time advances only by the duration of each step.

    Attributes:
        now_s: the virtual time.
        started: request ids in the order they were admitted, resumed ones again.
        timings: by request id.
        busy_s: time in which something ran.
        kv_block_seconds: KV blocks in use, integrated over that time.
        kv_blocks_max: the most in use.
        waiting_max: the most requests waiting before a step.
        timeline: (s, running, waiting, KV blocks used) before each step, for as many as was asked for.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        batch: SimulatedBatch,
        *,
        seed: int = 0,
        gather_s: float = 0.0,
        timeline: int = 0,
    ) -> None:
        self.scheduler = scheduler
        self.batch = batch
        self.now_s = 0.0
        self.started: list[str] = []
        self.timings: dict[str, RequestTiming] = {}
        self.busy_s = 0.0
        self.kv_block_seconds = 0.0
        self.kv_blocks_max = 0
        self.waiting_max = 0
        self.timeline: list[tuple[float, int, int, int]] = []
        self._seed = seed
        self._gather_s = gather_s
        self._gather_until_s = 0.0
        self._timeline_length = timeline

    def submit(self, requests: Iterable[Request]) -> None:
        for request in requests:
            if self._gather_s and not self.scheduler.waiting:
                self._gather_until_s = request.arrival_s + self._gather_s
            self.scheduler.submit(request)
            self.timings[request.id] = RequestTiming()

    def end(self, request: Request) -> None:
        """Cancels, as the dispatcher does."""
        self.batch.evict(request)
        self.scheduler.end(request)

    def end_s(self, request_id: str) -> float:
        """When a request finished. Raises ValueError: it has not."""
        end_s = self.timings[request_id].end_s
        if end_s is None:
            raise ValueError(f"request {request_id} has not finished")
        return end_s

    def step(self) -> list[TokensProduced]:
        """Plans and executes one step. An empty list if there was nothing to do or only prefill was done."""
        self.waiting_max = max(self.waiting_max, self.scheduler.waiting)
        gathers = self._gathers()
        if gathers and not self.scheduler.running:
            return []
        if self.batch.hold_blocks(self._select_victim) and not gathers:
            self._plan()
        if len(self.timeline) < self._timeline_length:
            running, waiting = self.scheduler.running, self.scheduler.waiting
            self.timeline.append((self.now_s, running, waiting, self.batch.kv.used))
        step = self.batch.begin_step()
        if step is None:
            return []
        duration_s = step.duration_ms / 1000
        self.now_s += duration_s
        self.busy_s += duration_s
        self.kv_block_seconds += self.batch.kv.used * duration_s
        self.kv_blocks_max = max(self.kv_blocks_max, self.batch.kv.used)
        produced = self.batch.end_step(step)
        for tokens in produced:
            self._produced(tokens)
        self.scheduler.step_done()
        return produced

    def run(self, arrivals: Iterable[Request] = (), on_arrival: Callable[[int], None] | None = None) -> None:
        """Steps until all of these have arrived, in order of arrival, and nothing waits or runs.

        Raises:
            RuntimeError: an idle engine has no room for the request whose turn it is.
        """
        coming = iter(arrivals)
        following = next(coming, None)
        arrived = 0
        while following is not None or self.scheduler.waiting or self.scheduler.running:
            if not self.scheduler.running:
                self._idle_until(math.inf if following is None else following.arrival_s)
            while following is not None and following.arrival_s <= self.now_s:
                self.submit([following])
                following = next(coming, None)
                arrived += 1
                if on_arrival is not None:
                    on_arrival(arrived)
            self.step()

    def _gathers(self) -> bool:
        return self.scheduler.waiting > 0 and self.now_s < self._gather_until_s

    def _idle_until(self, next_arrival_s: float) -> None:
        """Nothing runs: time passes until somebody comes or may start."""
        if not self.scheduler.waiting:
            self.now_s = max(self.now_s, next_arrival_s)
        elif self._gathers():
            self.now_s = max(self.now_s, min(next_arrival_s, self._gather_until_s))

    def _plan(self) -> None:
        plan = self.scheduler.plan(self.now_s, self.batch.room())
        for request in plan.evicted:
            self.batch.preempt(request)
        for request in plan.started:
            self.started.append(request.id)
            timing = self.timings[request.id]
            if timing.scheduled_s is None:
                timing.scheduled_s = self.now_s
            length = output_length(
                f"{self._seed}:{request.id}", request.replay_output_tokens, request.max_tokens
            )
            self.batch.admit(request, length)
        if not len(self.batch) and self.scheduler.waiting:
            raise RuntimeError("a request does not fit into an empty engine: it needs too many KV blocks")

    def _produced(self, tokens: TokensProduced) -> None:
        request, timing = tokens.request, self.timings[tokens.request.id]
        self.scheduler.produced(request, tokens.count)
        if timing.first_token_s is None:
            timing.first_token_s = self.now_s
        elif timing.last_token_s is not None:
            timing.max_token_gap_s = max(timing.max_token_gap_s, self.now_s - timing.last_token_s)
        timing.last_token_s = self.now_s
        if tokens.finished:
            self.scheduler.end(request, finished=True)
            timing.end_s = self.now_s

    def _select_victim(self) -> Request | None:
        return self.scheduler.select_victim(self.now_s)
