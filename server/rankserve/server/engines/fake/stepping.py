"""The batch in time: steps as long as anybody waits or runs."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from rankserve.server.engines.fake.batch import Batch, Sequence


class Stepper:
    """Drives a batch by the clock. A late step is made up for by the next ones.

    Args:
        batch: to drive.
        clock: monotonic seconds.
        sleep: for some seconds.
    """

    def __init__(
        self, batch: Batch, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._batch = batch
        self._clock = clock
        self._sleep = sleep
        self._wake = asyncio.Event()
        self._produced: dict[Sequence, asyncio.Event] = {}

    async def run(self) -> None:
        """Until cancelled."""
        step_end_s: float | None = None
        while True:
            begin_s = self._clock() if step_end_s is None else step_end_s
            duration_s = self._batch.begin_step(begin_s)
            if duration_s is None:
                step_end_s = None
                self._wake.clear()
                await self._wake.wait()
                continue
            step_end_s = begin_s + duration_s
            await self._sleep(max(0.0, step_end_s - self._clock()))
            for sequence in self._batch.end_step(step_end_s):
                if sequence in self._produced:
                    self._produced[sequence].set()

    async def tokens(self, sequence: Sequence) -> AsyncGenerator[int, None]:
        """Runs a sequence: how many tokens it has, whenever that grew, until it is finished.

        The iterator has to be closed: then the sequence is gone from the batch.
        """
        grown = self._produced[sequence] = asyncio.Event()
        self._batch.add(sequence)
        self._wake.set()
        try:
            while not sequence.finished:
                await grown.wait()
                grown.clear()
                yield sequence.produced
        finally:
            del self._produced[sequence]
            self._batch.remove(sequence)
