"""The scheduler: owns the queue, decides who starts, and chooses every victim.

The engine owns the packing of its steps. It asks `plan` before each step whom to start, and `select_victim`
when its KV cache is full; it reports `step_done` after each step. All times are seconds on one clock that
the caller injects.
"""

from collections.abc import Iterable

from sortedcontainers import SortedKeyList

from rankserve.server.scheduling.budget import AdmissionBudget, EngineRoom
from rankserve.server.scheduling.policies import Policy
from rankserve.server.scheduling.queue import RankedQueue
from rankserve.server.scheduling.request import Phase, Request
from rankserve.server.scheduling.starvation import StarvationClock, StarvationSettings


class Scheduler:
    """Orders requests onto one engine. Submitting, starting, ending and re-scoring one are O(log n)."""

    def __init__(self, policy: Policy, starvation: StarvationSettings | None = None) -> None:
        self.policy = policy
        self.starvation = starvation or StarvationSettings()
        self.steps = 0
        self.promotions_total = 0
        self.preemptions_total = 0
        self._queue = RankedQueue(policy)
        self._starving = StarvationClock(self.starvation)
        self._running: dict[str, Request] = {}
        self._protected: dict[str, Request] = {}
        self._deadlines = SortedKeyList(key=lambda r: (r.deadline_s, r.sequence))
        self._submitted = 0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        return len(self._running)

    def submit(self, request: Request) -> None:
        """Queues a new request, scored or not.

        Raises:
            ValueError: it was submitted before, or the policy's key for it is not a number.
        """
        if request.phase is not Phase.NEW:
            raise ValueError(f"request {request.id} was submitted before")
        self._submitted += 1
        request.sequence = self._submitted
        self._enqueue(request, since_s=request.arrival_s)
        if request.deadline_s is not None:
            self._deadlines.add(request)

    def plan(self, now_s: float, room: EngineRoom) -> list[Request]:
        """The requests to start now, in order. They count as running from here on.

        Stops at the first that does not fit: nobody overtakes a request whose turn it is.
        """
        for due_s, due in self._starving.take_due(now_s, self.steps):
            self._queue.promote(due, due_s)
            due.promotions += 1
            self.promotions_total += 1
        admitted: list[Request] = []
        budget = AdmissionBudget(room)
        while (request := self._queue.first()) is not None and budget.try_admit(request):
            self._dequeue(request)
            request.phase = Phase.RUNNING
            self._running[request.id] = request
            if request.due_s is not None:
                request.quantum_left = self.starvation.quantum_steps
                self._protected[request.id] = request
            admitted.append(request)
        return admitted

    def select_victim(self, now_s: float) -> Request | None:
        """Takes the running request that should yield its KV blocks and queues it again, with its prefix.

        The worst band first; within it, those not promoted before those that are, the worst key first. The
        last running request is never chosen: None then.
        """
        if len(self._running) < 2:
            return None
        victim = max(
            self._running.values(),
            key=lambda r: (r.priority, r.id not in self._protected, self.policy.key(r), r.sequence),
        )
        self._stop_running(victim)
        victim.preemptions += 1
        self.preemptions_total += 1
        self._enqueue(victim, since_s=now_s)
        return victim

    def step_done(self) -> None:
        """One step was executed with all that runs; it used a unit of each promoted request's quantum."""
        self.steps += 1
        for request in list(self._protected.values()):
            request.quantum_left -= 1
            if request.quantum_left <= 0:
                del self._protected[request.id]

    def end(self, request: Request) -> None:
        """The request finished, failed or was cancelled, wherever it was."""
        if request.phase is Phase.WAITING:
            self._starving_forget(request)
            self._queue.remove(request)
        elif request.phase is Phase.RUNNING:
            self._stop_running(request)
        if request.phase is not Phase.NEW and request.deadline_s is not None:
            self._deadlines.remove(request)
        request.phase = Phase.ENDED

    def expired(self, now_s: float) -> list[Request]:
        """The live requests whose deadline has passed, waiting or running; the caller ends them."""
        count = self._deadlines.bisect_key_right((now_s, self._submitted))
        return list(self._deadlines[:count])

    def next_deadline_s(self) -> float | None:
        """When the next live request expires."""
        return self._deadlines[0].deadline_s if self._deadlines else None

    def rescore(self, scored: Iterable[tuple[Request, float, float]]) -> None:
        """Gives live requests their (request, score, expected_tokens), all at once."""
        for request, score, expected_tokens in scored:
            due_s = request.due_s
            if request.phase is Phase.WAITING:
                self._queue.remove(request)
                request.due_s = None
            request.score, request.expected_tokens = score, expected_tokens
            if request.phase is Phase.WAITING:
                self._queue.add(request)
                if due_s is not None:
                    self._queue.promote(request, due_s)

    def place(self, request: Request) -> int:
        """How many waiting requests are ahead of this waiting one."""
        return self._queue.place(request)

    def waiting_in_order(self) -> list[Request]:
        """The waiting requests, the next to start first."""
        return list(self._queue)

    def check_integrity(self) -> None:
        """Raises RuntimeError if the scheduler's books contradict each other."""
        waiting = self.waiting_in_order()
        problems = [
            (len(waiting) != len(self._queue), "queue and index differ in length"),
            (any(r.phase is not Phase.WAITING for r in waiting), "a queued request is not waiting"),
            (any(r.phase is not Phase.RUNNING for r in self._running.values()), "a running request is not"),
            (any(r.id in self._running for r in waiting), "a request waits and runs"),
            (not self._protected.keys() <= self._running.keys(), "a protected request does not run"),
            (len(self._starving) > len(waiting), "starvation watches a request that does not wait"),
            (
                any(r.phase not in (Phase.WAITING, Phase.RUNNING) for r in self._deadlines),
                "an ended request has a deadline",
            ),
        ]
        for broken, problem in problems:
            if broken:
                raise RuntimeError(f"scheduler integrity: {problem}")

    def _enqueue(self, request: Request, *, since_s: float) -> None:
        request.waiting_since_s = since_s
        request.waiting_since_step = self.steps
        request.due_s = None
        self._queue.add(request)
        self._starving.watch(request)
        request.phase = Phase.WAITING

    def _dequeue(self, request: Request) -> None:
        self._starving_forget(request)
        self._queue.remove(request)

    def _starving_forget(self, request: Request) -> None:
        if request.due_s is None:
            self._starving.forget(request)

    def _stop_running(self, request: Request) -> None:
        del self._running[request.id]
        self._protected.pop(request.id, None)
