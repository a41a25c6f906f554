"""The scoring thread and the event loop share processors."""

import asyncio
import os
import sys
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from rankserve.server.ranking.worker import Outcome, ScoringThread


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere priorities are those of processes")
async def test_the_scoring_thread_gives_way_to_the_event_loop() -> None:
    niceness: list[int] = []

    def score(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return np.zeros(len(texts))

    scored: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
    thread = ScoringThread(score, asyncio.get_running_loop())
    thread.submit(["a prompt"], scored.set_result)
    assert await scored == [0.0]
    thread.stop()
    await thread.stopped.wait()
    assert niceness[0] > os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
