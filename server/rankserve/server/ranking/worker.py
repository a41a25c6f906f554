"""One daemon thread that scores, one job at a time, and reports to the event loop."""

import asyncio
import contextlib
import math
import os
import queue
import sys
import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rankserve.server.ranking.errors import ScoringError

ScoreFunction = Callable[[Sequence[str]], npt.NDArray[np.float64]]
Outcome = float | ScoringError
Report = Callable[[list[Outcome]], None]

_THREAD_NAME = "rankserve-scoring"
# A third of the event loop's share where both want the same processor.
_NICENESS = 5


class ScoringThread:
    """Runs a blocking score function off the event loop.

    A daemon thread and not an executor: an executor's threads are joined at exit, so that a hung model would
    keep the process from ending.
    """

    def __init__(self, score: ScoreFunction, loop: asyncio.AbstractEventLoop) -> None:
        self._score = score
        self._loop = loop
        self._jobs: queue.SimpleQueue[tuple[list[str], Report] | None] = queue.SimpleQueue()
        self.stopped = asyncio.Event()
        threading.Thread(target=self._work, name=_THREAD_NAME, daemon=True).start()

    def submit(self, texts: list[str], report: Report) -> None:
        """Scores the texts and calls `report` on the event loop with one outcome a text, in order."""
        self._jobs.put((texts, report))

    def stop(self) -> None:
        """Ends the thread after its current job; `stopped` tells when it has."""
        self._jobs.put(None)

    def _work(self) -> None:
        give_way()
        # A thread that outlives its loop has nobody to report to.
        with contextlib.suppress(RuntimeError):
            while (job := self._jobs.get()) is not None:
                texts, report = job
                self._loop.call_soon_threadsafe(report, score_each(self._score, texts))
            self._loop.call_soon_threadsafe(self.stopped.set)


def give_way() -> None:
    """Where processors are short, the event loop goes before the thread that calls this. On Linux only."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def is_scoring() -> bool:
    """Whether a scoring thread runs: after the server has stopped, one whose model hangs."""
    return any(thread.name == _THREAD_NAME for thread in threading.enumerate())


def score_each(score: ScoreFunction, texts: Sequence[str]) -> list[Outcome]:
    """Scores a batch; if that fails, each text alone, so that one poisonous prompt fails only itself."""
    try:
        scores = score(texts)
        if scores.shape != (len(texts),):
            raise ScoringError(f"scores of shape {scores.shape} for {len(texts)} prompts")
    # BaseException: a Rust panic within `tokenizers` is one, and must not end the thread.
    except BaseException as error:
        if len(texts) > 1:
            return [score_each(score, [text])[0] for text in texts]
        if isinstance(error, ScoringError):
            return [error]
        # Only its type: the text of an unknown error may quote the prompt.
        return [ScoringError(f"scoring failed ({type(error).__name__})")]
    return [
        value if math.isfinite(value) else ScoringError("the score is not finite")
        for value in scores.tolist()
    ]
