"""Makes a server leak, for the check that must catch it: put this folder on the PYTHONPATH of its process.

Requests that end leak what LEAKS names, of "memory" (LEAKED_BYTES and the request), "fds" and "tasks".
At most 20 times a second, so that a fast machine does not run out of what leaks.
"""

import asyncio
import os
from itertools import count
from time import monotonic

from rankserve.server.requests import LiveRequest, RequestRegistry

_LEAKS = os.environ["LEAKS"].split(",")
_BYTES = int(os.environ["LEAKED_BYTES"])
_INTERVAL_S = 0.05
# Few enough that minutes of it stay under the usual limit: a server out of them would show something else.
_LEAKS_PER_FD = 5

_kept: list[object] = []
_last_s = [0.0]
_leaks = count()
_end = RequestRegistry.end


def _end_and_leak(self: RequestRegistry, live: LiveRequest) -> None:
    _end(self, live)
    if monotonic() < _last_s[0] + _INTERVAL_S:
        return
    _last_s[0] = monotonic()
    if "memory" in _LEAKS:
        _kept.append((live, b"x" * _BYTES))
    if "tasks" in _LEAKS:
        _kept.append(asyncio.get_running_loop().create_task(asyncio.Event().wait()))
    if "fds" in _LEAKS and next(_leaks) % _LEAKS_PER_FD == 0:
        os.open(os.devnull, os.O_RDONLY)


RequestRegistry.end = _end_and_leak  # type: ignore[method-assign]
