"""Dynamic micro-batching: prompts that arrive while a batch runs form the next one."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from rankserve.server.ranking.errors import FailureKind, ScoringError
from rankserve.server.ranking.worker import Outcome, ScoreFunction, ScoringThread

# Until it is measured: that of a slow core, so that the first batch is small.
FIRST_GUESS_S_PER_PROMPT = 0.0025

Waiter = asyncio.Future[Outcome]


class MicroBatcher:
    """Collects single prompts into batches and scores them on one thread.

    There is no gathering delay: a batch starts as soon as the thread is free, with what has arrived by then.
    When more wait than can be scored in time the newest go first, since the oldest would be late anyway.

    Args:
        score: blocking; scores of a batch, shape [batch], in order.
        max_batch: most prompts in one call of `score`.
        timeout_ms: how long a single prompt may take from arrival to score.
        batch_target_ms: batches are sized to take about this long. The first prompts of a burst are then
            answered early where scoring is slow, and a chunk of `score_many` delays a single prompt by no
            more than this. Small batches cost throughput: in large ones, prompts of like length meet.
        max_pending: single prompts that may wait; more are refused.
        bulk_patience_s: how long `score_many` waits for a chunk before it takes the thread for hung.
    """

    def __init__(
        self,
        score: ScoreFunction,
        *,
        max_batch: int = 64,
        timeout_ms: float,
        batch_target_ms: float = 50.0,
        max_pending: int = 16_384,
        bulk_patience_s: float = 30.0,
    ) -> None:
        self._score = score
        self._max_batch = max_batch
        self._timeout_s = timeout_ms / 1000
        self._batch_target_s = batch_target_ms / 1000
        self._max_pending = max_pending
        self._bulk_patience_s = bulk_patience_s
        self._singles: OrderedDict[Waiter, str] = OrderedDict()
        self._deadlines: deque[tuple[float, Waiter]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._refusals = 0
        self._chunks: deque[list[tuple[Waiter, str]]] = deque()
        self._running: list[Waiter] = []
        self._busy_since: float | None = None
        self._thread: ScoringThread | None = None
        self._start_scheduled = False
        self._bulk_is_next = False
        self._seconds_per_prompt = FIRST_GUESS_S_PER_PROMPT
        # Of `score_many`.
        self._callers = 0
        self._went_on = asyncio.Event()
        self._closing = False

    def submit(self, text: str) -> Waiter:
        """Asks for the score of one prompt. Cancel what it returns if nobody needs it any more.

        The outcome is a `ScoringError` if scoring failed or is late, and at once if it is refused because the
        thread hangs, too many prompts wait, or the batcher is closed.
        """
        loop = asyncio.get_running_loop()
        waiter: Waiter = loop.create_future()
        refusal = self._refusal(loop.time())
        if refusal is not None:
            waiter.set_result(refusal)
            return waiter
        self._singles[waiter] = text
        self._deadlines.append((loop.time() + self._timeout_s, waiter))
        if self._timer is None:
            self._timer = loop.call_at(self._deadlines[0][0], self._expire)
        self._start_soon()
        return waiter

    async def score(self, text: str) -> float:
        """Score of one prompt. Raises ScoringError, see `submit`."""
        outcome = await self.submit(text)
        if isinstance(outcome, ScoringError):
            raise outcome
        return outcome

    async def score_many(self, texts: Sequence[str]) -> list[Outcome]:
        """Scores of many prompts, or why one has none, in order. Takes turns with single prompts.

        Raises:
            ScoringError: the thread hangs, or the batcher is closed.
        """
        outcomes: dict[int, Outcome] = {}
        by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        with self._caller():
            while len(outcomes) < len(texts):
                chunk = by_length[len(outcomes) : len(outcomes) + self._batch_size()]
                loop = asyncio.get_running_loop()
                waiters: list[Waiter] = [loop.create_future() for _ in chunk]
                self._chunks.append([(w, texts[index]) for w, index in zip(waiters, chunk, strict=True)])
                self._start_soon()
                try:
                    async with asyncio.timeout(self._bulk_patience_s):
                        scored = await asyncio.gather(*waiters)
                except TimeoutError:
                    raise ScoringError("the ranker hangs", FailureKind.STUCK) from None
                outcomes.update(zip(chunk, scored, strict=True))
        return [outcomes[index] for index in range(len(texts))]

    async def aclose(self) -> None:
        """Refuses new prompts, lets those that wait finish and ends the thread; waits for no hung one."""
        self._closing = True
        try:
            while self._callers or any(not waiter.done() for waiter in (*self._running, *self._singles)):
                if self._hangs(asyncio.get_running_loop().time()):
                    self._fail_all(ScoringError("the ranker hangs", FailureKind.STUCK))
                self._went_on.clear()
                await _wait_for(self._went_on, self._timeout_s)
        finally:
            if self._thread is not None:
                self._thread.stop()
        if self._thread is not None:
            await _wait_for(self._thread.stopped, self._timeout_s)

    @contextmanager
    def _caller(self) -> Iterator[None]:
        if self._closing:
            raise ScoringError("the ranker version is closed", FailureKind.CLOSED)
        self._callers += 1
        try:
            yield
        finally:
            self._callers -= 1
            self._went_on.set()

    def _refusal(self, now_s: float) -> ScoringError | None:
        """Why no single prompt is taken in."""
        if self._closing:
            return ScoringError("the ranker version is closed", FailureKind.CLOSED)
        if self._hangs(now_s):
            return ScoringError("the ranker hangs", FailureKind.STUCK)
        if len(self._singles) >= self._max_pending:
            # Looking for those that gave up takes a walk through all: not again for each that is refused.
            if self._refusals % max(1, self._max_pending // 16) == 0:
                self._singles = OrderedDict((w, text) for w, text in self._singles.items() if not w.done())
            self._refusals += 1
            if len(self._singles) >= self._max_pending:
                return ScoringError("too many prompts wait for a score", FailureKind.OVERLOADED)
        return None

    def _hangs(self, now_s: float) -> bool:
        return self._busy_since is not None and now_s - self._busy_since > self._timeout_s

    def _expire(self) -> None:
        """All have the same time, so those that came first are late first."""
        loop = asyncio.get_running_loop()
        while self._deadlines:
            deadline_s, waiter = self._deadlines[0]
            if not waiter.done():
                if deadline_s > loop.time():
                    break
                late = f"no score within {self._timeout_s * 1000:g} ms"
                waiter.set_result(ScoringError(late, FailureKind.LATE))
                self._singles.pop(waiter, None)
            self._deadlines.popleft()
        self._timer = loop.call_at(self._deadlines[0][0], self._expire) if self._deadlines else None

    def _batch_size(self) -> int:
        return max(1, min(self._max_batch, int(self._batch_target_s / self._seconds_per_prompt)))

    def _start_soon(self) -> None:
        # Not at once, so that all who arrive in this turn of the event loop share the batch.
        if not self._start_scheduled:
            self._start_scheduled = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._start_scheduled = False
        if self._busy_since is not None:
            return
        batch = self._next_batch()
        if not batch:
            return
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = ScoringThread(self._score, loop)
        self._running = [waiter for waiter, _ in batch]
        self._busy_since = loop.time()
        self._thread.submit([text for _, text in batch], partial(self._finish, self._busy_since))

    def _next_batch(self) -> list[tuple[Waiter, str]]:
        while self._chunks and (self._bulk_is_next or not self._singles):
            self._bulk_is_next = False
            chunk = self._chunks.popleft()
            if not all(waiter.done() for waiter, _ in chunk):
                return chunk
        self._bulk_is_next = True
        newest_first = len(self._singles) * self._seconds_per_prompt > self._timeout_s / 2
        batch: list[tuple[Waiter, str]] = []
        size = self._batch_size()
        while self._singles and len(batch) < size:
            waiter, text = self._singles.popitem(last=newest_first)
            if not waiter.done():
                batch.append((waiter, text))
        if not batch and self._chunks:
            # All single prompts had given up, and nobody else may come who would ask again.
            return self._next_batch()
        return batch

    def _finish(self, started: float, outcomes: list[Outcome]) -> None:
        per_prompt = (asyncio.get_running_loop().time() - started) / len(outcomes)
        self._seconds_per_prompt += 0.3 * (per_prompt - self._seconds_per_prompt)
        self._busy_since = None
        for waiter, outcome in zip(self._running, outcomes, strict=True):
            if not waiter.done():
                waiter.set_result(outcome)
        self._running = []
        while self._deadlines and self._deadlines[0][1].done():
            self._deadlines.popleft()
        self._went_on.set()
        self._start_soon()

    def _fail_all(self, error: ScoringError) -> None:
        chunked = [waiter for chunk in self._chunks for waiter, _ in chunk]
        for waiter in (*self._running, *self._singles, *chunked):
            if not waiter.done():
                waiter.set_result(error)


async def _wait_for(event: asyncio.Event, timeout_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
