"""Another try for what may yet be answered: exponential backoff with jitter, and Retry-After heeded by all.

Not by a library: those at hand log each retry, with what was sent, and know nothing of a pause that one
response asks of every worker.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from rankserve.trainer.collection.answers import Answer
from rankserve.trainer.collection.errors import EndpointError, UnansweredError
from rankserve.trainer.collection.prompts import Prompt

Ask = Callable[[Prompt, int], Awaitable[Answer]]

# Above this a run had better end and be resumed.
_LONGEST_PAUSE_S = 600.0


@dataclass(slots=True, frozen=True)
class Backoff:
    """Waits between tries: ``first_s`` doubled each time, at most ``longest_s``, times 0.5 to 1 at random."""

    retries: int = 6
    first_s: float = 1.0
    longest_s: float = 60.0

    def wait_s(self, tried: int, generator: random.Random) -> float:
        """How long to wait after so many tries (from 1)."""
        # The exponent is bounded, since a float is.
        wait_s = min(self.longest_s, self.first_s * 2.0 ** min(tried - 1, 60))
        return wait_s * generator.uniform(0.5, 1.0)


@dataclass(slots=True)
class Retrying:
    """Asks until there is an answer, for as many tries as the backoff has.

    Attributes:
        ask_once: one request.
        backoff: between two of them.
        generator: of the jitter.
        sleep: waits seconds.
        clock: monotonic seconds.
        retried: how often it has asked again, so far.
        last_reason: why, the last time.
    """

    ask_once: Ask
    backoff: Backoff
    generator: random.Random
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    retried: int = field(default=0, init=False)
    last_reason: str = field(default="", init=False)
    _resume_s: float = field(default=0.0, init=False)

    async def ask(self, prompt: Prompt, sample: int) -> Answer:
        """Raises what ``ask_once`` raises, UnansweredError only when no try is left."""
        tried = 0
        while True:
            await self._pause()
            try:
                return await self.ask_once(prompt, sample)
            except UnansweredError as error:
                tried += 1
                if tried > self.backoff.retries:
                    raise
                self._heed(error)
            await self.sleep(self.backoff.wait_s(tried, self.generator))

    async def _pause(self) -> None:
        while (left_s := self._resume_s - self.clock()) > 0:
            # A little later each, or all would come at once again.
            await self.sleep(left_s + self.generator.uniform(0.0, self.backoff.first_s))

    def _heed(self, error: UnansweredError) -> None:
        self.retried += 1
        self.last_reason = str(error)
        if error.retry_after_s is None:
            return
        if error.retry_after_s > _LONGEST_PAUSE_S:
            raise EndpointError(
                f"{error}: the endpoint asks to wait {error.retry_after_s:,.0f} s: run again then"
            )
        self._resume_s = max(self._resume_s, self.clock() + error.retry_after_s)
