"""Sends what is left to ask, many at a time, and records each answer as it comes."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

from rankserve.trainer.collection.answers import Answer
from rankserve.trainer.collection.errors import EndpointError, PromptRefusedError, UnansweredError
from rankserve.trainer.collection.log import SampleLog
from rankserve.trainer.collection.progress import Progress
from rankserve.trainer.collection.prompts import Prompt
from rankserve.trainer.collection.retries import Ask

_PROGRESS_EVERY_S = 0.5


class Runner:
    """One run over the samples that are left.

    Args:
        ask: brings one answer, after as many tries as it takes.
        log: where it is recorded.
        concurrency: requests at a time.
        stop_after: samples that fail one after the other until the run stops by itself.
        on_progress: told every half second, and at the end.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        ask: Ask,
        log: SampleLog,
        *,
        concurrency: int,
        stop_after: int,
        on_progress: Callable[[Progress], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._log = log
        self._concurrency = concurrency
        self._stop_after = stop_after
        self._on_progress = on_progress
        self._clock = clock
        self._started_s = clock()
        self._failures_in_a_row = 0
        self._refused: dict[str, tuple[Prompt, str]] = {}
        # Refusals tell of a prompt only where others are answered; else something is wrong with the settings.
        self._believes_refusals = any(entry.answers for entry in log.recorded.prompts.values())
        self.progress = Progress(total=0)

    async def run(self, pending: Sequence[tuple[Prompt, int]]) -> None:
        """Asks for all of it. What was recorded stays, whatever is raised.

        Raises:
            EndpointError: the endpoint answers none, or too many failed in a row.
            OSError: the log cannot be written.
        """
        self.progress.total = len(pending)
        queue = iter(pending)
        reporter = asyncio.create_task(self._report())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(self._work(queue))
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        finally:
            reporter.cancel()
            self._tell()

    async def _work(self, queue: Iterator[tuple[Prompt, int]]) -> None:
        for prompt, sample in queue:
            if prompt.id in self._refused:
                self.progress.skipped += 1
                continue
            self._log.sent(prompt, sample)
            self.progress.running += 1
            try:
                answer = await self._ask(prompt, sample)
            except PromptRefusedError as error:
                self._refuse(prompt, str(error))
            except UnansweredError as error:
                self.progress.unanswered += 1
                self._fail(str(error))
            else:
                self._record(prompt, sample, answer)
            finally:
                self.progress.running -= 1

    def _record(self, prompt: Prompt, sample: int, answer: Answer) -> None:
        self._log.answered(prompt, sample, answer)
        self.progress.answered += 1
        self.progress.output_tokens += answer.output_tokens
        self._failures_in_a_row = 0
        if not self._believes_refusals:
            self._believes_refusals = True
            for refused, reason in self._refused.values():
                self._log.refused(refused, reason)

    def _refuse(self, prompt: Prompt, reason: str) -> None:
        self.progress.refused += 1
        # Another of its samples may have been on its way too.
        if prompt.id in self._refused:
            return
        self._refused[prompt.id] = (prompt, reason)
        if self._believes_refusals:
            self._log.refused(prompt, reason)
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        self.progress.last_failure = reason
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= self._stop_after:
            raise EndpointError(
                f"{self._failures_in_a_row} requests failed one after the other (--stop-after), "
                f"the last with: {reason}"
            )

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_EVERY_S)
            self._tell()

    def _tell(self) -> None:
        self.progress.elapsed_s = self._clock() - self._started_s
        self._on_progress(self.progress)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first that is no group of others."""
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
