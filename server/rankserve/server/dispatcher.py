"""The life of every request: accepted, scored, queued, run, ended. The one writer of all request state.

Everything here runs on the event loop and nothing blocks it, so each method is atomic.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic, time

import structlog

from rankserve.server.engines.contract import Assignment, Engine, StepPlan, TokensProduced
from rankserve.server.errors import (
    DeadlinePassed,
    InternalFailure,
    InvalidRequest,
    QueueFull,
    RequestCancelled,
    RequestError,
    ServerDraining,
)
from rankserve.server.events import Accepted, EventStream, Failed, Finished, Queued, Timing
from rankserve.server.ranking.ranker import PromptScore, Ranker
from rankserve.server.requests import LiveRequest, RequestRegistry, RequestSpec
from rankserve.server.scheduling.budget import EngineRoom
from rankserve.server.scheduling.request import Phase, Request
from rankserve.server.scheduling.scheduler import Scheduler
from rankserve.server.settings import ServerSettings
from rankserve.server.start_rate import StartRate

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Counters:
    """Since the start of the server. Every accepted request ends in exactly one of the four."""

    accepted: int = 0
    finished: int = 0
    cancelled: int = 0
    expired: int = 0
    failed: int = 0
    refused: int = 0
    output_tokens: int = 0


class Dispatcher:
    """Takes requests in, hands them to the engine in the scheduler's order, and tells clients what happens.

    It is the engine's host (`engines.contract.EngineHost`).
    """

    def __init__(
        self,
        scheduler: Scheduler,
        engine: Engine,
        ranker: Ranker,
        settings: ServerSettings,
        *,
        clock: Callable[[], float] = monotonic,
        wall_clock: Callable[[], float] = time,
    ) -> None:
        self.scheduler = scheduler
        self.engine = engine
        self.ranker = ranker
        self.counters = Counters()
        self.draining = False
        self._settings = settings
        self._clock = clock
        self._wall_clock = wall_clock
        self._registry = RequestRegistry(settings.retain_results, settings.retain_s)
        self._queued_bytes = 0
        self._start_rate = StartRate()
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._nothing_live = asyncio.Event()

    # What clients ask

    def submit(self, spec: RequestSpec, stream: EventStream) -> None:
        """Accepts a request, or attaches the stream to the one it repeats.

        Raises:
            RequestError: refused; nothing was kept of it.
        """
        try:
            if (same := self._registry.find_same(spec)) is not None:
                self._attach(same, stream)
                return
            self._admit(spec)
        except RequestError:
            self.counters.refused += 1
            raise
        live = self._accept(spec, stream)
        try:
            self.scheduler.submit(live.request)
        except ValueError:
            log.exception("request_not_queued", request_id=spec.id)
            self._fail(live, InternalFailure())
            return
        live.scoring = asyncio.create_task(self._score_live(live))
        self._arm_deadline_timer()
        self.engine.wake()

    def cancel(self, request_id: str) -> bool:
        """False if the request had ended before. Raises RequestNotFound."""
        live = self._registry.find(request_id)
        if live.outcome is not None:
            return False
        self._fail(live, RequestCancelled())
        return True

    def find(self, request_id: str) -> LiveRequest:
        """Raises RequestNotFound."""
        return self._registry.find(request_id)

    def stream_lost(self, stream: EventStream) -> None:
        """The client of this stream is gone: cancels what nobody else waits for."""
        for request_id in list(stream.open_requests):
            live = self._registry.live[request_id]
            live.streams.remove(stream)
            if not live.streams and not live.spec.detached:
                self._fail(live, RequestCancelled())

    def live_requests(self) -> list[LiveRequest]:
        return list(self._registry.live.values())

    def rescore(self, scores: dict[LiveRequest, PromptScore]) -> None:
        """Gives waiting and running requests scores of one ranker version, all at once."""
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

    @property
    def scoring(self) -> int:
        """Requests that have no score yet; they wait, or run already."""
        return sum(live.scoring is not None for live in self._registry.live.values())

    async def drain(self, timeout_s: float) -> None:
        """Refuses new requests, ends those not yet started, lets the others finish until the timeout."""
        self.draining = True
        for live in self.live_requests():
            if live.scheduled_s is None:
                self._fail(live, ServerDraining())
        if self._registry.live:
            self._nothing_live.clear()
            try:
                await asyncio.wait_for(self._nothing_live.wait(), timeout_s)
            except TimeoutError:
                self.fail_all(ServerDraining())

    def fail_all(self, error: RequestError) -> None:
        """Ends every live request with this error."""
        for live in self.live_requests():
            self._fail(live, error)

    # What the engine asks

    async def run_engine(self) -> None:
        """Runs the engine until cancelled. If it fails, every live request fails, and the error is raised."""
        try:
            await self.engine.run(self)
        except Exception:
            self.draining = True
            self.fail_all(InternalFailure())
            raise

    def plan(self, room: EngineRoom) -> StepPlan:
        self._expire()
        now_s = self._clock()
        plan = self.scheduler.plan(now_s, room)
        for request in plan.evicted:
            self._queued_bytes += self._registry.live[request.id].spec.size_bytes
        assignments = []
        for request in plan.started:
            live = self._registry.live[request.id]
            assignments.append(Assignment(request, live.spec.prompt, live.spec.sampling))
            self._queued_bytes -= live.spec.size_bytes
            self._start_rate.started(now_s)
            if live.scheduled_s is None:
                live.scheduled_s = now_s
            self._tell_queued(live)
        if not self.scheduler.waiting:
            self._start_rate.queue_empty()
        return StepPlan(assignments, plan.evicted)

    def select_victim(self) -> Request | None:
        victim = self.scheduler.select_victim(self._clock())
        if victim is not None:
            self._queued_bytes += self._registry.live[victim.id].spec.size_bytes
        return victim

    def produced(self, tokens: Sequence[TokensProduced]) -> None:
        now_s = self._clock()
        for new in tokens:
            live = self._registry.live[new.request.id]
            if live.first_token_s is None:
                live.first_token_s = now_s
            elif live.last_token_s is not None:
                live.max_token_gap_s = max(live.max_token_gap_s, now_s - live.last_token_s)
            live.last_token_s = now_s
            live.text.append(new.text)
            self.counters.output_tokens += new.count
            self.scheduler.produced(new.request, new.count)
            if not live.spec.result_only:
                offset = new.request.output_tokens - new.count
                for stream in live.streams:
                    stream.put_tokens(new.request.id, offset, new.count, new.text)
            if new.finished:
                self._finish(live, new.finished)

    def step_done(self) -> None:
        self.scheduler.step_done()

    # How a request moves on

    def _admit(self, spec: RequestSpec) -> None:
        if self.draining:
            raise ServerDraining
        if spec.model not in ("", self.engine.name):
            raise InvalidRequest("model", f"this server drives {self.engine.name!r}; or leave it empty")
        if self.scheduler.waiting >= self._settings.max_waiting:
            raise QueueFull(f"{self.scheduler.waiting} requests wait", self._retry_after_s())
        if self._queued_bytes + spec.size_bytes > self._settings.max_waiting_bytes:
            raise QueueFull(f"{self._queued_bytes >> 20} MiB of prompts wait", self._retry_after_s())
        longest = self.engine.capacity.max_model_len
        input_tokens = self._input_tokens(spec)
        output_tokens = spec.max_tokens or 1
        if input_tokens + output_tokens > longest:
            field = "prompt" if input_tokens + 1 > longest else "sampling.max_tokens"
            raise InvalidRequest(
                field,
                f"{input_tokens} prompt tokens and {output_tokens} to answer exceed the"
                f" model's {longest}; shorten the prompt or lower max_tokens",
            )

    def _accept(self, spec: RequestSpec, stream: EventStream) -> LiveRequest:
        now_s = self._clock()
        input_tokens = self._input_tokens(spec)
        longest_answer = self.engine.capacity.max_model_len - input_tokens
        request = Request(
            id=spec.id,
            arrival_s=now_s,
            prompt_tokens=input_tokens,
            max_tokens=spec.max_tokens or min(self._settings.default_max_tokens, longest_answer),
            priority=spec.priority,
            tenant=spec.tenant,
            deadline_s=now_s + spec.deadline_ms / 1000 if spec.deadline_ms else None,
            replay_output_tokens=spec.replay_output_tokens,
        )
        live = LiveRequest(spec, request, self._wall_clock(), [stream])
        self._registry.add(live)
        self._queued_bytes += spec.size_bytes
        self.counters.accepted += 1
        stream.open_requests.add(spec.id)
        stream.put(Accepted(spec.id, live.accept_time))
        return live

    def _attach(self, live: LiveRequest, stream: EventStream) -> None:
        if stream in live.streams:
            return
        stream.put(Accepted(live.spec.id, live.accept_time))
        if live.queued_s is not None:
            stream.put(self._queued_event(live))
        if live.request.output_tokens and not live.spec.result_only:
            stream.put_tokens(live.spec.id, 0, live.request.output_tokens, "".join(live.text))
        if live.outcome is not None:
            stream.put(live.outcome)
        else:
            live.streams.append(stream)
            stream.open_requests.add(live.spec.id)

    async def _score_live(self, live: LiveRequest) -> None:
        """Scores a request that waits already, behind all that have a score; an idle engine may start it."""
        try:
            score = await self._score(live.spec.ranking_text)
            live.scoring = None
            self.rescore({live: score})
        except Exception:
            live.scoring = None
            self._fail(live, InternalFailure())
            raise
        self._tell_queued(live)

    def _tell_queued(self, live: LiveRequest) -> None:
        if live.queued_s is None:
            live.queued_s = self._clock()
            event = self._queued_event(live)
            for stream in live.streams:
                stream.put(event)

    async def _score(self, ranking_text: str) -> PromptScore:
        while True:
            score = await self.ranker.score(ranking_text)
            active = self.ranker.active
            if active is None or score.ranker_version == active.reference:
                return score
            if score.ranker_version == "":
                return active.neutral()
            # The version was swapped meanwhile, and scores of two versions must not meet in one queue.

    def _queued_event(self, live: LiveRequest) -> Queued:
        waits = live.request.phase is Phase.WAITING
        place = self.scheduler.place(live.request, self._clock()) if waits else 0
        return Queued(
            live.spec.id,
            live.score,
            live.ranker_version,
            place,
            self._estimated_wait_s(place) if waits else 0.0,
        )

    def _estimated_wait_s(self, place: int) -> float | None:
        if place == 0 and self.scheduler.running < self.engine.capacity.max_sequences:
            return 0.0
        interval_s = self._start_rate.interval_s(self._clock())
        return None if interval_s is None else (place + 1) * interval_s

    def _retry_after_s(self) -> float:
        """Time until about a tenth of the queue has started."""
        interval_s = self._start_rate.interval_s(self._clock())
        if interval_s is None:
            return 1.0
        return min(max(interval_s * self._settings.max_waiting / 10, 0.1), 60.0)

    def _input_tokens(self, spec: RequestSpec) -> int:
        return spec.replay_input_tokens or self.engine.count_tokens(spec.prompt)

    def _finish(self, live: LiveRequest, reason: str) -> None:
        request = live.request
        self.counters.finished += 1
        self._end(
            live,
            Finished(
                request_id=request.id,
                finish_reason=reason,
                input_tokens=request.prompt_tokens,
                output_tokens=request.output_tokens,
                text="".join(live.text) if live.spec.result_only else "",
                score=live.score,
                ranker_version=live.ranker_version,
                policy=self.scheduler.policy.name,
                preemptions=request.preemptions,
                promoted=request.promotions > 0,
                timing=self._timing(live),
                metadata=live.spec.metadata,
            ),
        )

    def _timing(self, live: LiveRequest) -> Timing:
        def after_acceptance(moment_s: float | None) -> float:
            return 0.0 if moment_s is None else moment_s - live.request.arrival_s

        return Timing(
            accept_time=live.accept_time,
            queued_s=after_acceptance(live.queued_s),
            scheduled_s=after_acceptance(live.scheduled_s),
            first_token_s=after_acceptance(live.first_token_s),
            last_token_s=after_acceptance(live.last_token_s),
            max_token_gap_s=live.max_token_gap_s,
            time_scale=self.engine.time_scale,
        )

    def _fail(self, live: LiveRequest, error: RequestError) -> None:
        if isinstance(error, RequestCancelled):
            self.counters.cancelled += 1
        elif isinstance(error, DeadlinePassed):
            self.counters.expired += 1
        else:
            self.counters.failed += 1
        self.engine.evict(live.request)
        self._end(live, Failed(live.spec.id, error, live.request.output_tokens))
        self.engine.wake()

    def _end(self, live: LiveRequest, outcome: Finished | Failed) -> None:
        if live.request.phase in (Phase.NEW, Phase.WAITING):
            self._queued_bytes -= live.spec.size_bytes
        if live.scoring is not None:
            live.scoring.cancel()
            live.scoring = None
        self.scheduler.end(live.request, finished=isinstance(outcome, Finished))
        live.outcome = outcome
        for stream in live.streams:
            stream.put(outcome)
        self._registry.end(live, self._clock())
        if not self._registry.live:
            self._nothing_live.set()

    def _expire(self) -> None:
        for request in self.scheduler.expired(self._clock()):
            live = self._registry.live[request.id]
            self._fail(live, DeadlinePassed(live.spec.deadline_ms))

    def _arm_deadline_timer(self) -> None:
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
            self._deadline_timer = None
        deadline_s = self.scheduler.next_deadline_s()
        if deadline_s is not None:
            delay_s = max(0.0, deadline_s - self._clock())
            self._deadline_timer = asyncio.get_running_loop().call_later(delay_s, self._on_deadline)

    def _on_deadline(self) -> None:
        self._deadline_timer = None
        self._expire()
        self._arm_deadline_timer()
