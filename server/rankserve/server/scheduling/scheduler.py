"""The scheduler: owns the queue, decides who starts, and chooses every victim.

The engine owns the packing of its steps. It asks `plan` before each step whom to start, and `select_victim`
when its KV cache is full; it reports `produced` and `step_done` after each step. All times are seconds on one
clock that the caller injects.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from rankserve.server.scheduling.budget import AdmissionBudget, EngineRoom
from rankserve.server.scheduling.deadlines import Deadlines
from rankserve.server.scheduling.fair_share import FairShare
from rankserve.server.scheduling.fcfs_bound import FcfsBound
from rankserve.server.scheduling.policies import Policy
from rankserve.server.scheduling.preemption import Preemption
from rankserve.server.scheduling.queue import RankedQueue
from rankserve.server.scheduling.request import Phase, Request
from rankserve.server.scheduling.reservation import KvReservation
from rankserve.server.scheduling.starvation import Starvation, StarvationSettings


@dataclass(slots=True, frozen=True)
class SchedulerSettings:
    """Everything about a scheduler but its policy.

    Attributes:
        starvation: bounds on waiting.
        fair_share: between tenants.
        preemption: whether running requests yield to waiting ones.
        kv_reservation: KV blocks that admission sets aside for answers.
    """

    starvation: StarvationSettings = field(default_factory=StarvationSettings)
    fair_share: FairShare = field(default_factory=FairShare)
    preemption: Preemption = field(default_factory=Preemption)
    kv_reservation: KvReservation = KvReservation.NONE


@dataclass(slots=True, frozen=True)
class Plan:
    """What to do before the next step: first evict, then start. A request may be in both.

    Attributes:
        started: requests that start, in order.
        evicted: running requests that yielded to those, in order; they wait again.
    """

    started: list[Request]
    evicted: list[Request]


class Scheduler:
    """Orders requests onto one engine. Submitting, starting, ending and re-scoring one are O(log n)."""

    def __init__(self, policy: Policy, settings: SchedulerSettings | None = None) -> None:
        self.policy = policy
        self.settings = settings or SchedulerSettings()
        self.steps = 0
        self.waiting = 0
        self.promotions_total = 0
        self.preemptions_total = 0
        self._use(policy)
        self._running: dict[str, Request] = {}
        self._protected: dict[str, Request] = {}
        self._deadlines = Deadlines()
        self._submitted = 0

    @property
    def running(self) -> int:
        return len(self._running)

    def waiting_for(self, model: str) -> int:
        """How many wait; a scheduler does not tell models apart (see `by_model`)."""
        return self.waiting

    def set_policy(self, policy: Policy, now_s: float) -> None:
        """Orders all that waits, and all that comes, by another policy. O(n log n).

        What the policy before had learnt of lengths and pace is forgotten; how much each tenant was served
        is not.

        Raises:
            ValueError: its key for a waiting request is not a number; nothing was changed.
        """
        waiting = sorted(self._queue, key=lambda r: (r.waiting_since_s, r.sequence))
        for request in waiting:
            if math.isnan(policy.key(request)):
                raise ValueError(f"policy {policy.name} gives {request.id} a key that is not a number")
        before = self._queue
        self.policy = policy
        self._use(policy)
        self._queue.carry_turns(before)
        # Who joins is lifted to the level of the least served that waits, so those come first.
        for request in sorted(waiting, key=self._queue.served):
            request.ageing = 0.0
            if self._bound is not None:
                self._bound.queued(request, now_s)
            self._queue.add(request)

    def last_waiting(self) -> Request | None:
        """A waiting request far from its turn: of the worst band, the tenant with the most waiting."""
        return self._queue.last()

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
            self._deadlines.watch(request)

    def plan(self, now_s: float, room: EngineRoom) -> Plan:
        """Whom to start now, and whom to evict for it. Those started count as running from here on.

        Stops at the first that does not fit: nobody overtakes a request whose turn it is.
        """
        plan = Plan([], [])
        if self._bound is not None:
            self._bound.look(now_s)
        queue, steps = self._queue, self.steps
        budget = AdmissionBudget(room, self.settings.kv_reservation, self._running.values())
        preempts = self.settings.preemption.enabled
        while True:
            due = queue.first_due(now_s, steps)
            promotes = due is not None and queue.first_by_policy(now_s) is not due
            head = queue.pop(now_s, steps, budget.try_admit)
            if head is None:
                if not preempts:
                    return plan
                head = queue.first(now_s, steps)
                if head is None or not self._evict_for(head, head is due, now_s, budget, plan):
                    return plan
                promotes = promotes or head is due
                queue.remove(head)
            self._start(head, due, promotes)
            plan.started.append(head)

    def select_victim(self, now_s: float) -> Request | None:
        """Takes the running request that should yield its KV blocks and queues it again, with its prefix.

        The worst band first; within it, those not protected before those that are, the worst key first. The
        last running request is never chosen: None then.
        """
        if len(self._running) < 2:
            return None
        victim = self._worst_running(now_s, [])
        if victim is not None:
            self._evict(victim, now_s)
        return victim

    def put_back(self, request: Request) -> None:
        """A running request waits again, through no choice of ours, and has waited ever since it arrived."""
        self._stop_running(request)
        request.restarts += 1
        self._enqueue(request, since_s=request.arrival_s)

    def produced(self, request: Request, count: int) -> None:
        """A running request got tokens; call it before `step_done`, and before `end` if it finished."""
        self._queue.charge_output(request, count)
        if self._bound is not None:
            self._bound.produced(request, count)

    def step_done(self) -> None:
        """One step was executed with all that runs; it used a unit of each promoted request's quantum."""
        self.steps += 1
        for request in list(self._protected.values()):
            request.quantum_left -= 1
            if request.quantum_left <= 0:
                del self._protected[request.id]

    def end(self, request: Request, *, finished: bool = False) -> None:
        """The request ended, wherever it was: with its last token, or it failed or was cancelled."""
        if request.phase is Phase.WAITING:
            self._queue.remove(request)
            self.waiting -= 1
            if self._bound is not None:
                self._bound.left(request)
        elif request.phase is Phase.RUNNING:
            self._stop_running(request)
            if self._bound is not None and finished:
                self._bound.finished(request)
        known = request.phase is not Phase.NEW
        request.phase = Phase.ENDED
        if known:
            self._deadlines.forget(request)

    def expired(self, now_s: float, most: int | None = None) -> list[Request]:
        """The live requests whose deadline has passed, so many at most; the caller ends them."""
        return list(islice(self._deadlines.passed(now_s), most))

    def next_deadline_s(self) -> float | None:
        """When the next live request expires."""
        return self._deadlines.next_s()

    def rescore(self, scored: Iterable[tuple[Request, float, float, float]]) -> None:
        """Gives live requests their (request, score, expected tokens, their p90), all at once."""
        for request, score, expected_tokens, expected_tokens_p90 in scored:
            request.score = score
            request.expected_tokens = expected_tokens
            request.expected_tokens_p90 = expected_tokens_p90
            if request.phase is Phase.WAITING:
                self._queue.rekey(request)
                if self._bound is not None:
                    self._bound.rescored(request)

    def place(self, request: Request, now_s: float) -> int:
        """About how many waiting requests are ahead of this waiting one (see `RankedQueue.place`)."""
        return self._queue.place(request, now_s)

    def next_requests(self, now_s: float, most: int) -> list[Request]:
        """The waiting requests that would start next, in order, if there were room now; O(most log n)."""
        return list(islice(self._queue.preview(now_s, self.steps), most))

    def running_requests(self, most: int) -> list[Request]:
        """So many of the running requests, those that run for longest first."""
        return list(islice(self._running.values(), most))

    def waiting_requests(self) -> list[Request]:
        """The waiting requests, in no order."""
        return list(self._queue)

    def check_integrity(self) -> None:
        """Raises RuntimeError if the scheduler's books contradict each other."""
        self._queue.check_integrity()
        self._deadlines.check_integrity()
        waiting = self.waiting_requests()
        problems = [
            (not len(waiting) == len(self._queue) == self.waiting, "the waiting are miscounted"),
            (any(r.phase is not Phase.WAITING for r in waiting), "a queued request is not waiting"),
            (any(r.phase is not Phase.RUNNING for r in self._running.values()), "a running request is not"),
            (any(r.id in self._running for r in waiting), "a request waits and runs"),
            (any(r.queue_entry for r in self._running.values()), "a running request is queued"),
            (not self._protected.keys() <= self._running.keys(), "a protected request does not run"),
            (
                self._bound is not None and self._bound.counted() != {r.id for r in waiting},
                "the bound is off",
            ),
        ]
        for broken, problem in problems:
            if broken:
                raise RuntimeError(f"scheduler integrity: {problem}")

    def _use(self, policy: Policy) -> None:
        self._bound = None if policy.bound is None else FcfsBound(policy.bound)
        self._starvation = Starvation(self.settings.starvation, self._bound)
        self._queue = RankedQueue(policy, self._starvation, self.settings.fair_share)

    def _enqueue(self, request: Request, *, since_s: float) -> None:
        request.waiting_since_s = since_s
        request.waiting_since_step = self.steps
        if self._bound is None:
            self._queue.add(request)
        else:
            self._bound.queued(request, since_s)
            try:
                self._queue.add(request)
            except ValueError:
                self._bound.left(request)
                raise
        request.phase = Phase.WAITING
        self.waiting += 1

    def _start(self, request: Request, due: Request | None, promotes: bool) -> None:
        """A request that has just left the queue runs.

        Args:
            request: it.
            due: whom starvation prevention put first.
            promotes: whether the policy would have put another first, or one was evicted.
        """
        self.waiting -= 1
        self._queue.charge_start(request)
        request.phase = Phase.RUNNING
        self._running[request.id] = request
        if request is due:
            if promotes:
                request.promotions += 1
                self.promotions_total += 1
            request.quantum_left = self._starvation.quantum_steps
            self._protected[request.id] = request
        if self._bound is not None:
            self._bound.started(request, due)

    def _evict_for(
        self, head: Request, is_due: bool, now_s: float, budget: AdmissionBudget, plan: Plan
    ) -> bool:
        """Evicts the worst running request if it yields to this one, which then fits."""
        victim = self._worst_running(now_s, plan.started)
        if victim is None or not self.settings.preemption.may_evict(
            victim,
            head,
            self.policy,
            head_is_due=is_due,
            running=len(self._running),
        ):
            return False
        if not budget.try_replace(victim, head):
            return False
        self._evict(victim, now_s)
        plan.evicted.append(victim)
        return True

    def _worst_running(self, now_s: float, spared: list[Request]) -> Request | None:
        """The running request that is the first to yield, but for those just started."""
        candidates: Iterable[Request] = self._running.values()
        if spared:
            just_started = {request.id for request in spared}
            candidates = [request for request in candidates if request.id not in just_started]
        return max(
            candidates,
            key=lambda r: (
                r.priority,
                r.quantum_left <= 0,
                self.policy.key_at(r, now_s),
                r.arrival_s,
                r.sequence,
            ),
            default=None,
        )

    def _evict(self, victim: Request, now_s: float) -> None:
        self._stop_running(victim)
        victim.preemptions += 1
        self.preemptions_total += 1
        self._enqueue(victim, since_s=now_s)

    def _stop_running(self, request: Request) -> None:
        del self._running[request.id]
        self._protected.pop(request.id, None)
        request.quantum_left = 0


def needs_expected_tokens(policy: Policy, settings: SchedulerSettings) -> str:
    """What of it is of no use with a ranker that predicts no lengths; empty if nothing is."""
    if policy.needs_expected_tokens:
        return f"policy {policy.name!r}"
    if settings.preemption.enabled and policy.preempts_by_expected_tokens:
        return f"preemption under policy {policy.name!r}"
    if settings.kv_reservation is KvReservation.PREDICTED:
        return "the KV reservation 'predicted'"
    return ""
