"""Makes a server leak, for the check that must catch it: put this folder on the PYTHONPATH of its process.

Requests that end leak what LEAKS names, of "memory" (LEAKED_BYTES and the request), "fds" and "tasks".
At most 20 times a second, so that a fast machine does not run out of what leaks.
"""

import asyncio
import os
from time import monotonic

from rankserve.server.requests import LiveRequest, RequestRegistry

_LEAKS = os.environ["LEAKS"].split(",")
_BYTES = int(os.environ["LEAKED_BYTES"])
_INTERVAL_S = 0.05
# A server out of file descriptors would show something else.
_MOST_FDS = 700

_kept: list[object] = []
_fds: list[int] = []
_last_s = [0.0]
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
    if "fds" in _LEAKS and len(_fds) < _MOST_FDS:
        _fds.append(os.open(os.devnull, os.O_RDONLY))


RequestRegistry.end = _end_and_leak  # type: ignore[method-assign]
