"""vLLM's waiting queue in RankServe's order. Nothing of vLLM is imported here.

vLLM looks at the first request and takes it out, then either starts it or sets it aside, for instance since
its grammar is not compiled yet; those set aside come back before the step ends. So a request that was taken
out has started only once its status says so.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from rankserve.server.scheduling.engine_priority import WORST_BAND
from rankserve.server.scheduling.fair_share import FairShare
from rankserve.server.scheduling.fcfs_bound import FcfsBound
from rankserve.server.scheduling.policies import Policy
from rankserve.server.scheduling.queue import RankedQueue
from rankserve.server.scheduling.request import Phase, Request
from rankserve.server.scheduling.starvation import Starvation, StarvationSettings
from rankserve.vllm.marks import read_marks
from rankserve.vllm.neutral import NeutralScore


class EngineRequest(Protocol):
    """What is read of vLLM's requests."""

    request_id: str
    priority: int
    num_prompt_tokens: int
    max_tokens: int

    @property
    def sampling_params(self) -> Any: ...

    @property
    def num_output_tokens(self) -> int: ...


_R = TypeVar("_R", bound=EngineRequest)


@dataclass(slots=True)
class _Known(Generic[_R]):
    """A request of vLLM and ours.

    Attributes:
        engine: vLLM's.
        ranked: ours, kept from its arrival to its end.
        due: while it is taken out: whom starvation prevention put first at that time.
    """

    engine: _R
    ranked: Request
    due: Request | None = None


class WaitingQueue(Generic[_R]):
    """Has the methods of vLLM's `RequestQueue`, and a few that the scheduler calls.

    Args:
        policy: whose order it keeps; its bound on waiting holds too.
        has_started: whether a request that was taken out runs.
        clock: seconds, monotonic.
        starvation: bounds on waiting.
        fair_share: between tenants.

    Attributes:
        steps: how many the scheduler has begun.
    """

    def __init__(
        self,
        policy: Policy,
        has_started: Callable[[_R], bool],
        clock: Callable[[], float],
        starvation: StarvationSettings | None = None,
        fair_share: FairShare | None = None,
    ) -> None:
        self.steps = 0
        self._has_started = has_started
        self._clock = clock
        self._now_s = clock()
        self._needs_lengths = policy.needs_expected_tokens
        self._bound = None if policy.bound is None else FcfsBound(policy.bound)
        starvation_prevention = Starvation(starvation or StarvationSettings(), self._bound)
        self._queue = RankedQueue(policy, starvation_prevention, fair_share)
        self._neutral = NeutralScore()
        self._known: dict[str, _Known[_R]] = {}
        self._waiting: set[str] = set()
        self._taken: dict[str, _Known[_R]] = {}
        self._last_taken: _Known[_R] | None = None
        self._added = 0

    # vLLM's interface.

    def add_request(self, request: _R) -> None:
        known = self._known.get(request.request_id)
        if known is None:
            self._enter(request)
        else:
            self._enter_again(known, request)

    def prepend_request(self, request: _R) -> None:
        """It comes back, set aside in this step or evicted from the batch: to its place, not the front."""
        self._settle_last()
        taken = self._taken.pop(request.request_id, None)
        if taken is None:
            self.add_request(request)
        else:
            taken.due = None
            self._queue.add(taken.ranked)
            self._waiting.add(request.request_id)

    def prepend_requests(self, requests: Iterable[_R]) -> None:
        for request in requests:
            self.prepend_request(request)

    def peek_request(self) -> _R:
        self._settle_last()
        first = self._queue.first(self._now_s, self.steps)
        if first is None:
            raise IndexError("nothing waits")
        return self._known[first.id].engine

    def pop_request(self) -> _R:
        self._settle_last()
        due = self._queue.first_due(self._now_s, self.steps)
        first = self._queue.pop(self._now_s, self.steps)
        if first is None:
            raise IndexError("nothing waits")
        known = self._known[first.id]
        known.due = due
        self._waiting.discard(first.id)
        self._taken[first.id] = self._last_taken = known
        return known.engine

    def remove_request(self, request: _R) -> None:
        if request.request_id not in self._waiting:
            raise ValueError(f"request {request.request_id} does not wait")
        self.remove_requests((request,))

    def remove_requests(self, requests: Iterable[_R]) -> None:
        """Takes out those that wait here."""
        for request in requests:
            if request.request_id in self._waiting:
                self._waiting.discard(request.request_id)
                ranked = self._known[request.request_id].ranked
                self._queue.remove(ranked)
                if self._bound is not None:
                    self._bound.left(ranked)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[_R]:
        """In the order in which they would start now."""
        order = list(self._queue.preview(self._now_s, self.steps))
        return (self._known[ranked.id].engine for ranked in order)

    # For the scheduler.

    def begin_step(self) -> None:
        """A step is about to be planned: the time stands still until it is."""
        self.steps += 1
        self._now_s = self._clock()
        if self._bound is not None:
            self._bound.look(self._now_s)

    def end_step(self) -> None:
        """The step is planned: who was taken out and has not come back is not ours any more."""
        self._last_taken = None
        for known in list(self._taken.values()):
            self._start(known)

    def produced(self, request_id: str, tokens: int) -> None:
        """A running request got so many tokens."""
        known = self._known.get(request_id)
        if known is None or not tokens:
            return
        known.ranked.output_tokens += tokens
        self._queue.charge_output(known.ranked, tokens)
        if self._bound is not None:
            self._bound.produced(known.ranked, tokens)

    def ended(self, request_id: str, *, finished: bool) -> None:
        """A request is over, with its last token or without."""
        known = self._known.get(request_id)
        if known is None:
            return
        self.remove_requests((known.engine,))
        if self._taken.pop(request_id, None) is not None and self._bound is not None:
            self._bound.left(known.ranked)
        if finished and self._bound is not None and known.ranked.phase is Phase.RUNNING:
            self._bound.finished(known.ranked)
        known.ranked.phase = Phase.ENDED
        del self._known[request_id]

    def forget_all_but(self, request_ids: Collection[str]) -> None:
        """Ends whatever ended unnoticed; cheap as long as that is nothing much."""
        if len(self._known) > 2 * len(request_ids) + 1024:
            for request_id in [known for known in self._known if known not in request_ids]:
                self.ended(request_id, finished=False)

    def check_integrity(self) -> None:
        """Raises RuntimeError if its books contradict each other."""
        self._queue.check_integrity()
        queued = {request.id for request in self._queue}
        if queued != self._waiting or not self._waiting <= self._known.keys():
            raise RuntimeError("vLLM queue integrity: those that wait are not those in the queue")

    def _enter(self, request: _R) -> None:
        self._added += 1
        now_s = self._clock()
        marks = read_marks(getattr(request.sampling_params, "extra_args", None))
        ranked = Request(
            id=request.request_id,
            arrival_s=now_s,
            prompt_tokens=request.num_prompt_tokens,
            max_tokens=request.max_tokens,
            priority=min(max(request.priority, -WORST_BAND), WORST_BAND),
            tenant=marks.tenant,
            expected_tokens=marks.expected_tokens,
            expected_tokens_p90=marks.expected_tokens_p90,
            sequence=self._added,
        )
        if marks.score is None:
            self._neutral.fill(ranked)
        else:
            ranked.score = marks.score
            if self._needs_lengths and ranked.expected_tokens == math.inf:
                self._neutral.fill_length(ranked)
            self._neutral.observe(ranked)
        known = self._known[request.request_id] = _Known(request, ranked)
        self._wait(known, now_s)

    def _enter_again(self, known: _Known[_R], request: _R) -> None:
        """After an eviction, or with the next part of a prompt that comes in parts."""
        self._settle_last()
        self.remove_requests((known.engine,))
        known.engine = request
        ranked = known.ranked
        ranked.prompt_tokens, ranked.max_tokens = request.num_prompt_tokens, request.max_tokens
        ranked.preemptions += 1
        self._wait(known, self._clock())

    def _wait(self, known: _Known[_R], now_s: float) -> None:
        ranked = known.ranked
        ranked.phase = Phase.WAITING
        ranked.waiting_since_s, ranked.waiting_since_step = now_s, self.steps
        if self._bound is not None:
            self._bound.queued(ranked, now_s)
        self._queue.add(ranked)
        self._waiting.add(ranked.id)

    def _settle_last(self) -> None:
        known, self._last_taken = self._last_taken, None
        if known is not None and known.ranked.id in self._taken and self._has_started(known.engine):
            self._start(known)

    def _start(self, known: _Known[_R]) -> None:
        ranked, due, known.due = known.ranked, known.due, None
        del self._taken[ranked.id]
        ranked.phase = Phase.RUNNING
        self._queue.charge_start(ranked)
        if self._bound is not None:
            self._bound.started(ranked, due)
