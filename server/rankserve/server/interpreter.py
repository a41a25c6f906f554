"""How the interpreter is set for a server with many live requests and threads beside the event loop."""

import asyncio
import ctypes
import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_COLLECT_EVERY_S = 30.0
# Collecting takes 4 ms for a thousand requests, and nothing else happens meanwhile.
_FEW_REQUESTS = 10_000

# At a time.
_LOOKUPS = 64

# Of glibc's mallopt.
_M_ARENA_MAX = -8


def keep_memory_together() -> None:
    """Call it before there are threads. Where libc is not glibc, nothing happens.

    By default each thread allocates from an arena of its own, and what gRPC's, ONNX Runtime's and SQLite's
    threads free in theirs is kept for them: memory grows for hours under clients that come and go.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)


def make_room_for_lookups(loop: asyncio.AbstractEventLoop) -> None:
    """Names are looked up in the event loop's threads, and one that nobody answers for holds one for seconds.

    By default there are four more than processors: a few endpoints that are gone would keep healthy ones
    from being reached. Threads are made as they are needed.
    """
    loop.set_default_executor(ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="rankserve"))


def tune_interpreter() -> None:
    """Call it once everything is loaded, before the first request.

    By default the garbage collector looks at every object each time a few hundred were made: with 20,000
    live requests a third of the server's time. It looks at new ones often, so that it stops the event loop
    for 2 ms at a time while a queue fills, not 70, and at all of them seldom. And a thread that comes back
    from SQLite or ONNX Runtime waits 5 ms for the interpreter's lock while the event loop is busy, several
    times for each commit.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 5, 1_000)
    sys.setswitchinterval(0.001)


async def collect_cycles(requests: Callable[[], int]) -> None:
    """Frees closed connections, which refer to themselves; for ever.

    By itself the garbage collector, as it is set here, comes to them once an hour under load.

    Args:
        requests: how many the server holds; while there are many, collecting would stop it for too long.
    """
    while True:
        await asyncio.sleep(_COLLECT_EVERY_S)
        if requests() <= _FEW_REQUESTS:
            gc.collect()
