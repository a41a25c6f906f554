"""The life of every request: accepted, scored, queued, run, ended. The one writer of all request state.

Everything here runs on the event loop and nothing blocks it, so each method is atomic. What a client is told
goes through the journal first (`_tell`), which without one means at once.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from time import monotonic, time

import structlog

from rankserve.server.admission import Admission, WaitingLimits
from rankserve.server.engine_limits import EngineLimits
from rankserve.server.engines.contract import Assignment, Engine, StepPlan, TokensProduced
from rankserve.server.errors import (
    AnswerLost,
    DeadlinePassed,
    DeadlineUnreachable,
    EngineFailed,
    InternalFailure,
    JournalFailed,
    QueueFull,
    RequestCancelled,
    RequestError,
    RequestShed,
    ServerDraining,
    StreamLost,
)
from rankserve.server.events import EventStream, Failed, Finished, Queued
from rankserve.server.journal.journal import Journal, NoJournal
from rankserve.server.live_scoring import LiveScoring
from rankserve.server.observer import Observer, Observers
from rankserve.server.outcomes import finished
from rankserve.server.ranking.ranker import PromptScore, Ranker
from rankserve.server.requests import LiveRequest, RequestRegistry, RequestSpec
from rankserve.server.scheduling.budget import EngineRoom
from rankserve.server.scheduling.by_model import AnyScheduler
from rankserve.server.scheduling.policies import Policy
from rankserve.server.scheduling.request import Phase, Request
from rankserve.server.settings import ServerSettings
from rankserve.server.shedding import Shedding
from rankserve.server.slices import AT_ONCE, in_slices
from rankserve.server.start_rate import StartRate
from rankserve.server.telling import (
    tell_accepted,
    tell_left,
    tell_outcome,
    tell_queued,
    tell_so_far,
    tell_tokens,
)
from rankserve.server.timers import DeadlineTimer, Repeated

log = structlog.get_logger(__name__)

_FORGET_INTERVAL_S = 1.0
# The loop's timers may be early by its clock's resolution.
_LATER_S = 0.001


@dataclass(slots=True)
class Counters:
    """Since the start of the server. Every accepted request ends in exactly one of the four."""

    accepted: int = 0
    recovered: int = 0
    finished: int = 0
    cancelled: int = 0
    expired: int = 0
    failed: int = 0
    shed: int = 0
    refused: int = 0
    output_tokens: int = 0


class Dispatcher:
    """Takes requests in, hands them to the engine in the scheduler's order, and tells clients what happens.

    It is the engine's host (`engines.contract.EngineHost`).

    Attributes:
        closed: why no request is accepted; None while they are.
        paused: whether none is started.
    """

    def __init__(
        self,
        scheduler: AnyScheduler,
        engine: Engine,
        ranker: Ranker,
        settings: ServerSettings,
        *,
        journal: Journal | None = None,
        observers: Sequence[Observer] = (),
        tenant_limits: Callable[[str], WaitingLimits] | None = None,
        clock: Callable[[], float] = monotonic,
        wall_clock: Callable[[], float] = time,
    ) -> None:
        self.scheduler = scheduler
        self.engine = engine
        self.ranker = ranker
        self.counters = Counters()
        self.closed: type[ServerDraining] | type[EngineFailed] | None = None
        self.paused = False
        self.scoring = LiveScoring(ranker, self._scored, self._scoring_failed, clock)
        self.registry = RequestRegistry(settings.retain_results, settings.retain_s)
        self.limits = EngineLimits(engine, settings.default_max_tokens)
        self.journal = journal or NoJournal()
        default_limits = WaitingLimits(settings.max_waiting_per_tenant, settings.max_waiting_bytes_per_tenant)
        self.admission = Admission(
            WaitingLimits(settings.max_waiting, settings.max_waiting_bytes),
            tenant_limits or (lambda tenant: default_limits),
            self._free_slots,
            self._retry_after_s,
        )
        self._shedding = Shedding(
            scheduler, self.admission, lambda request: self.registry.live[request.id].spec, self._shed
        )
        self._settings = settings
        self._observers = Observers(observers)
        self._clock = clock
        self._wall_clock = wall_clock
        self._gather_until_s: defaultdict[str, float] = defaultdict(lambda: -math.inf)
        self._start_rates: defaultdict[str, StartRate] = defaultdict(StartRate)
        self._deadlines = DeadlineTimer(scheduler.next_deadline_s, clock, self._expire)
        self._forgetting = Repeated(_FORGET_INTERVAL_S, self._forget)
        self._nothing_live = asyncio.Event()
        # Those that the end of this process leaves to the journal.
        self._parked: set[str] = set()
        self._holds = 0

    # What clients ask

    def submit(self, spec: RequestSpec, stream: EventStream) -> None:
        """Accepts a request, or attaches the stream to the one it repeats, unless that was never served.

        Raises:
            RequestError: refused; nothing was kept of it.
        """
        try:
            same = self.registry.find_same(spec)
            if same is not None and not same.unserved:
                self.attach(same, stream)
                return
            self._admit(spec)
        except RequestError as error:
            self.refused(error)
            raise
        # Making room may have forgotten it already.
        if same is not None and self.registry.ended.get(spec.id) is same:
            self.registry.drop(same)
            self.journal.forgotten(same)
        live = self._accept(spec, stream)
        self.journal.accepted(live)
        # The journal has it; in memory it would be kept a second time.
        spec.body = b""
        self.journal.then(lambda: self._enter(live))

    def refused(self, error: RequestError) -> None:
        """Counts a request that was refused, here or before it came here."""
        self.counters.refused += 1
        self._observers.refused(error)

    def attach(self, live: LiveRequest, stream: EventStream, offset: int = 0) -> None:
        """Tells a stream of a request what others have been told, and all that follows.

        Args:
            live: the request.
            stream: who wants to know.
            offset: tokens it has already.

        Raises:
            InvalidRequest: there is no token at which the answer could go on.
        """
        if stream in live.streams:
            return
        tell_so_far(live, stream, self._queued_event(live), offset)
        if live.told_outcome:
            return
        if live.spec.id in self._parked:
            stream.leave(live.spec.id, ServerDraining())
        else:
            live.streams.append(stream)
            stream.open_requests.add(live.spec.id)

    def cancel(self, request_id: str) -> bool:
        """False if the request had ended before. Raises RequestNotFound."""
        live = self.registry.find(request_id)
        if live.outcome is not None:
            return False
        self._fail(live, RequestCancelled())
        return True

    def find(self, request_id: str) -> LiveRequest:
        """Raises RequestNotFound."""
        return self.registry.find(request_id)

    def stream_lost(self, stream: EventStream) -> None:
        """The client of this stream is gone: cancels what it alone waits for.

        What comes after the first few is left to later turns of the event loop, so that others need not wait
        for a client that had a hundred thousand.
        """
        for request_id in list(islice(stream.open_requests, AT_ONCE)):
            stream.open_requests.discard(request_id)
            live = self.registry.find(request_id)
            live.streams.remove(stream)
            wanted = live.outlives_streams or any(other.owns for other in live.streams)
            if stream.owns and not wanted and live.outcome is None:
                self._fail(live, StreamLost())
        if stream.open_requests:
            asyncio.get_running_loop().call_soon(self.stream_lost, stream)

    def live_requests(self) -> list[LiveRequest]:
        return list(self.registry.live.values())

    @contextmanager
    def no_starts(self) -> Iterator[None]:
        """Nobody is started meanwhile: for changes of the whole queue that take several turns of the loop."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self.engine.wake()

    def rescore(self, scores: dict[LiveRequest, PromptScore]) -> None:
        """Gives waiting and running requests scores of one ranker version."""
        self.scheduler.rescore(
            (
                live.request,
                score.score,
                math.inf if score.expected_tokens_p50 is None else score.expected_tokens_p50,
                math.inf if score.expected_tokens_p90 is None else score.expected_tokens_p90,
            )
            for live, score in scores.items()
        )
        for live, score in scores.items():
            live.ranker_version = score.ranker_version

    def recover(self, ended: Iterable[LiveRequest], unfinished: Iterable[LiveRequest]) -> None:
        """Takes over the requests of a journal; call it before anything else.

        Args:
            ended: those that are retained, in the order in which they ended.
            unfinished: the others, in the order of acceptance. Those that the engine cannot go on with end
                with `AnswerLost`, those that it cannot serve at all with `InvalidRequest`.
        """
        for live in ended:
            self.registry.add(live)
            self.registry.end(live)
        for live in unfinished:
            self.registry.add(live)
            self.admission.enters(live.spec)
            self.counters.accepted += 1
            self.counters.recovered += 1
            self._observers.accepted(live)
            live.told_accepted = True
            try:
                self.limits.check_recovered(live.spec, live.request.output_tokens)
                if live.request.output_tokens and not self.engine.capacity.resumes:
                    raise AnswerLost
            except RequestError as error:
                log.warning("request_not_resumed", request_id=live.spec.id, reason=str(error))
                self._fail(live, error)
            else:
                self._enter(live)
        self._forget()

    async def drain(self, timeout_s: float) -> None:
        """Refuses new requests, ends those not yet started, lets the others finish until the timeout.

        What is recorded in a journal and outlives its streams waits there for the next start.
        """
        self.closed = ServerDraining
        with self.no_starts():
            await self._leave([live for live in self.live_requests() if live.scheduled_s is None])
        self._nothing_live.clear()
        if len(self.registry.live) > len(self._parked):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._nothing_live.wait(), timeout_s)
        await self._leave(self.live_requests())

    async def durable(self) -> None:
        """Returns once everything that happened so far is recorded."""
        recorded = asyncio.Event()
        self.journal.then(recorded.set)
        await recorded.wait()

    def set_policy(self, policy: Policy) -> None:
        """Orders everything by another policy from now on. Raises ValueError if it cannot."""
        self.scheduler.set_policy(policy, self._clock())
        self.engine.wake()

    async def _leave(self, requests: Iterable[LiveRequest]) -> None:
        """Ends requests that this process will not serve, or leaves them to the journal."""
        async for some in in_slices(requests):
            for live in some:
                if live.spec.id in self._parked or live.outcome is not None:
                    continue
                if self.journal.keeps and live.outlives_streams:
                    self._park(live)
                else:
                    self._fail(live, ServerDraining())

    def _park(self, live: LiveRequest) -> None:
        """Leaves a request to the journal."""
        self._let_go(live)
        self._parked.add(live.spec.id)
        self.engine.evict(live.request)
        self.scheduler.end(live.request)
        self.journal.then(lambda: tell_left(live))

    def _let_go(self, live: LiveRequest) -> None:
        """A request that ends here neither takes up room any more nor needs a score."""
        if live.request.phase in (Phase.NEW, Phase.WAITING):
            self.admission.leaves(live.spec)
        self.scoring.stop(live)

    def fail_all(self, error: RequestError) -> None:
        """Ends every live request with this error, but for those left to the journal."""
        for live in self.live_requests():
            if live.spec.id not in self._parked:
                self._fail(live, error)

    # What the engine asks

    async def run_engine(self) -> None:
        """Runs the engine until cancelled. If it fails, every live request fails, and the error is raised."""
        try:
            await self.engine.run(self)
        except Exception:
            self.closed = EngineFailed
            self.fail_all(InternalFailure())
            raise

    def plan(self, room: EngineRoom) -> StepPlan:
        everybody_is_in_time = self._expire()
        now_s = self._clock()
        waits = self.paused or self._holds or self.journal.failure or now_s < self._gather_until_s[room.model]
        if waits or not everybody_is_in_time:
            return StepPlan(())
        plan = self.scheduler.plan(now_s, room)
        for request in plan.evicted:
            self.admission.enters(self.registry.live[request.id].spec)
        start_rate = self._start_rates[room.model]
        assignments = []
        for request in plan.started:
            live = self.registry.live[request.id]
            key = -math.inf if request.promotions else self.scheduler.policy.key_at(request, now_s)
            answer = live.answer.whole() if request.output_tokens else ""
            assignments.append(Assignment(request, live.spec.prompt, live.spec.sampling, answer, key))
            self.admission.leaves(live.spec)
            start_rate.started(now_s)
            if live.scheduled_s is None:
                live.scheduled_s = now_s
            self._tell_queued(live)
            self._observers.started(live)
        if not self.scheduler.waiting_for(room.model):
            start_rate.queue_empty()
        return StepPlan(assignments, plan.evicted)

    def select_victim(self) -> Request | None:
        victim = self.scheduler.select_victim(self._clock())
        if victim is not None:
            self.admission.enters(self.registry.live[victim.id].spec)
        return victim

    def produced(self, tokens: Sequence[TokensProduced]) -> None:
        # Written for speed: what a token costs.
        now_s, all_live, scheduler, records = (
            self._clock(),
            self.registry.live,
            self.scheduler,
            self.journal.keeps,
        )
        told: list[tuple[LiveRequest, int, int, str]] = []
        for new in tokens:
            count = new.count
            if not count:
                continue
            live = all_live[new.request.id]
            last_s = live.last_token_s
            if last_s is None:
                live.first_token_s = now_s
            elif now_s - last_s > live.max_token_gap_s:
                live.max_token_gap_s = now_s - last_s
            live.last_token_s = now_s
            first = live.answer.tokens
            live.answer.append(count, new.text)
            self.counters.output_tokens += count
            scheduler.produced(new.request, count)
            if records and not live.spec.result_only:
                self.journal.produced(live, first, count, new.text)
            told.append((live, first, count, new.text))
        if told:
            self.journal.then(lambda: tell_tokens(told))
        for new in tokens:
            if new.finished:
                new.request.prompt_tokens = new.input_tokens or new.request.prompt_tokens
                self._finish(self.registry.live[new.request.id], new.finished)

    def step_done(self) -> None:
        self.scheduler.step_done()

    def returned(self, request: Request) -> None:
        live = self.registry.live[request.id]
        self.admission.enters(live.spec)
        self.scheduler.put_back(request)
        log.info("request_returned", request_id=request.id, restarts=request.restarts)
        self.engine.wake()

    def failed(self, request: Request, error: RequestError) -> None:
        self._fail(self.registry.live[request.id], error)

    # How a request moves on

    def _admit(self, spec: RequestSpec) -> None:
        if self.closed is not None:
            raise self.closed
        if self.journal.failure:
            raise JournalFailed
        self.limits.check(spec)
        self.admission.check_tenant(spec)
        try:
            self.admission.check_queue(spec)
        except QueueFull:
            if not self._settings.shed or not self._shedding.make_room(spec):
                raise

    def _shed(self, request: Request) -> None:
        self._fail(self.registry.live[request.id], RequestShed(self._retry_after_s()))

    def _accept(self, spec: RequestSpec, stream: EventStream) -> LiveRequest:
        now_s = self._clock()
        input_tokens = self.limits.input_tokens(spec)
        request = Request(
            id=spec.id,
            arrival_s=now_s,
            prompt_tokens=input_tokens,
            max_tokens=self.limits.max_tokens(spec, input_tokens),
            priority=spec.priority,
            tenant=spec.tenant,
            model=self.limits.model(spec),
            deadline_s=now_s + spec.deadline_ms / 1000 if spec.deadline_ms else None,
            replay_output_tokens=spec.replay_output_tokens,
        )
        live = LiveRequest(spec, request, self._wall_clock(), [stream], outlives_streams=spec.detached)
        self.registry.add(live)
        self.admission.enters(spec)
        self.counters.accepted += 1
        stream.open_requests.add(spec.id)
        self._observers.accepted(live)
        return live

    def _enter(self, live: LiveRequest) -> None:
        """An accepted request, recorded by now, begins to wait."""
        tell_accepted(live)
        if live.outcome is not None or live.spec.id in self._parked:
            return
        self._gather(live.request.model)
        try:
            self.scheduler.submit(live.request)
        except ValueError:
            log.exception("request_not_queued", request_id=live.spec.id)
            self._fail(live, InternalFailure())
            return
        if self.ranker.scores:
            self.scoring.start(live)
        else:
            self._tell_queued(live)
        if live.request.deadline_s is not None:
            self._deadlines.watch(live.request.deadline_s)
        self.engine.wake()

    def _gather(self, model: str) -> None:
        """Into an empty queue comes the first of what may be many: nobody starts for a moment."""
        if self._settings.gather_ms and not self.scheduler.waiting_for(model):
            gather_s = self._settings.gather_ms / 1000
            self._gather_until_s[model] = self._clock() + gather_s
            asyncio.get_running_loop().call_later(gather_s + _LATER_S, self.engine.wake)

    def _scoring_failed(self, live: LiveRequest) -> None:
        if live.outcome is None:
            self._fail(live, InternalFailure())

    def _scored(self, live: LiveRequest, score: PromptScore, took_s: float) -> None:
        """A waiting request has its score; an idle engine may have started it meanwhile."""
        self.rescore({live: score})
        self._observers.scored(live, took_s)
        self._tell_queued(live)

    def _tell_queued(self, live: LiveRequest) -> None:
        if live.queued_s is not None:
            return
        live.queued_s = self._clock()
        event = self._queued_event(live)
        if self._is_late(live, event):
            self._fail(live, DeadlineUnreachable(live.spec.deadline_ms, event.estimated_wait_s or 0.0))
        else:
            self.journal.then(lambda: tell_queued(live, event))

    def _is_late(self, live: LiveRequest, event: Queued) -> bool:
        """Whether it is to be refused because its turn would come after its deadline."""
        deadline_s = live.request.deadline_s
        if not self._settings.refuse_late or deadline_s is None or event.estimated_wait_s is None:
            return False
        return live.request.phase is Phase.WAITING and self._clock() + event.estimated_wait_s > deadline_s

    def _queued_event(self, live: LiveRequest) -> Queued:
        waits = live.request.phase is Phase.WAITING
        place = self.scheduler.place(live.request, self._clock()) if waits else 0
        return Queued(
            live.spec.id,
            live.score,
            live.ranker_version,
            place,
            self._estimated_wait_s(live.request.model, place) if waits else 0.0,
        )

    def _estimated_wait_s(self, model: str, place: int) -> float | None:
        if place == 0 and self._free_slots():
            return 0.0
        return self._start_rates[model].wait_s(place, self._clock())

    def _free_slots(self) -> int:
        if self.paused or self.journal.failure:
            return 0
        return max(0, self.engine.capacity.max_sequences - self.scheduler.running)

    def _retry_after_s(self) -> float:
        return self._start_rates[""].retry_after_s(self._settings.max_waiting, self._clock())

    def _finish(self, live: LiveRequest, reason: str) -> None:
        self.counters.finished += 1
        policy, time_scale = self.scheduler.policy.name, self.engine.time_scale
        self._end(live, finished(live, reason, policy=policy, time_scale=time_scale))

    def _fail(self, live: LiveRequest, error: RequestError) -> None:
        if isinstance(error, RequestCancelled):
            self.counters.cancelled += 1
        elif isinstance(error, DeadlinePassed | DeadlineUnreachable):
            self.counters.expired += 1
        else:
            self.counters.failed += 1
            self.counters.shed += isinstance(error, RequestShed)
        self.engine.evict(live.request)
        self._end(live, Failed(live.spec.id, error, live.request.output_tokens))
        self.engine.wake()

    def _end(self, live: LiveRequest, outcome: Finished | Failed) -> None:
        self._let_go(live)
        if live.spec.id in self._parked:
            self._parked.discard(live.spec.id)
        else:
            self.scheduler.end(live.request, finished=isinstance(outcome, Finished))
        live.outcome = outcome
        live.ended_s, live.end_time = self._clock(), self._wall_clock()
        self.registry.end(live)
        self.journal.ended(live)
        self.journal.then(lambda: self._tell_outcome(live, outcome))
        self._observers.ended(live)

    def _tell_outcome(self, live: LiveRequest, outcome: Finished | Failed) -> None:
        tell_outcome(live, outcome)
        if len(self.registry.live) == len(self._parked):
            self._nothing_live.set()
        self._forget()

    def _forget(self) -> None:
        """Lets go of what was retained for long enough, and looks again later as long as there is more."""
        forgotten = self.registry.forget(self._clock(), AT_ONCE)
        for live in forgotten:
            self.journal.forgotten(live)
        if self.registry.ended:
            self._forgetting.go_on(at_once=len(forgotten) == AT_ONCE)

    def _expire(self) -> bool:
        """Ends some of those whose deadline has passed. Returns whether that were all."""
        late = self.scheduler.expired(self._clock(), AT_ONCE)
        for request in late:
            live = self.registry.live[request.id]
            self._fail(live, DeadlinePassed(live.spec.deadline_ms))
        return len(late) < AT_ONCE
