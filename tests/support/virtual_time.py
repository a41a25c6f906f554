"""The real scheduler and the real simulated batch, stepped by hand: deterministic and without a clock."""

from collections.abc import Iterable

from rankserve.server.engines.contract import TokensProduced
from rankserve.server.engines.simulated.batch import SimulatedBatch
from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.scheduler import Scheduler


class VirtualServer:
    """Time advances only by the simulated duration of each step.

    Attributes:
        now_s: the virtual time.
        started: request ids in the order they were admitted, resumed ones again.
        finished_s: when each request finished.
    """

    def __init__(self, scheduler: Scheduler, batch: SimulatedBatch) -> None:
        self.scheduler = scheduler
        self.batch = batch
        self.now_s = 0.0
        self.started: list[str] = []
        self.finished_s: dict[str, float] = {}
        self.tokens: dict[str, int] = {}

    def submit(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self.scheduler.submit(request)

    def end(self, request: Request) -> None:
        """Cancels, as the dispatcher does."""
        self.batch.evict(request)
        self.scheduler.end(request)

    def step(self) -> list[TokensProduced]:
        """Plans and executes one step. An empty list if there was nothing to do or only prefill was done."""
        for request in self.scheduler.plan(self.now_s, self.batch.room()):
            self.started.append(request.id)
            self.batch.admit(request, min(request.replay_output_tokens or 1, request.max_tokens))
        step = self.batch.begin_step(self._select_victim)
        if step is None:
            return []
        self.now_s += step.duration_ms / 1000
        produced = self.batch.end_step(step)
        for tokens in produced:
            self.tokens[tokens.request.id] = self.tokens.get(tokens.request.id, 0) + tokens.count
            if tokens.finished:
                self.scheduler.end(tokens.request)
                self.finished_s[tokens.request.id] = self.now_s
        self.scheduler.step_done()
        return produced

    def run(self) -> None:
        """Steps until nothing waits or runs."""
        while self.scheduler.waiting or self.scheduler.running:
            self.step()

    def _select_victim(self) -> Request | None:
        return self.scheduler.select_victim(self.now_s)
