"""Who of a band's waiting requests is due."""

from bisect import insort
from collections import deque

from rankserve.server.scheduling.lane import STALE_ALLOWED
from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.starvation import Starvation

# (since when it waits, sequence, preemptions, request): a request waits once, and once more for each
# preemption, so the third tells entries of earlier waits.
_Entry = tuple[float, int, int, Request]


class DueIndex:
    """Waiting requests in the order in which they began to wait.

    Whoever waits longest in seconds has also seen the most steps, so if anybody is due, by either bound, the
    first one is.
    """

    __slots__ = ("_entries", "_starvation", "_watched")

    def __init__(self, starvation: Starvation) -> None:
        self._starvation = starvation
        self._entries: deque[_Entry] = deque()
        self._watched = 0

    def watch(self, request: Request) -> None:
        """A request begins to wait. O(1), unless one is watched already that began later."""
        self._watched += 1
        entries = self._entries
        entry = (request.waiting_since_s, request.sequence, request.preemptions, request)
        if entries and entry < entries[-1]:
            insort(entries, entry)
        else:
            entries.append(entry)
        if len(entries) > 2 * self._watched + STALE_ALLOWED:
            self._entries = deque(entry for entry in entries if _waits(entry))

    def forget(self) -> None:
        """A request waits no more. Its entry stays, stale, for a while."""
        self._watched -= 1

    def first(self, now_s: float, step: int) -> Request | None:
        """The request that waits longest, if it is due; None if nobody is."""
        entries = self._entries
        while entries and not _waits(entries[0]):
            entries.popleft()
        if not entries:
            return None
        request = entries[0][3]
        starvation = self._starvation
        if starvation.is_late(request, now_s) or starvation.is_passed_over(request, step):
            return request
        return None

    def __len__(self) -> int:
        """Entries, stale ones included: at most 2 x the most that waited + a constant."""
        return len(self._entries)


def _waits(entry: _Entry) -> bool:
    request = entry[3]
    return request.queue_entry is not None and request.preemptions == entry[2]
