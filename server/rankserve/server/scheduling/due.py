"""Waiting requests in the order in which they began to wait: where starvation prevention looks."""

from bisect import insort
from collections import deque
from collections.abc import Iterator
from itertools import islice

from rankserve.server.scheduling.request import Request

# Stale entries that are always allowed.
_STALE_ALLOWED = 64

# (since when it waits, sequence, preemptions, request): a request waits once, and once more for each
# preemption, so the third tells entries of earlier waits.
_Entry = tuple[float, int, int, Request]


class WaitOrder:
    """Requests by how long they wait. Whoever waits longest in seconds has also seen the most steps."""

    __slots__ = ("_entries", "_watched")

    def __init__(self) -> None:
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
        if len(entries) > 2 * self._watched + _STALE_ALLOWED:
            # Without the doubles of requests that left the queue and came back within one wait.
            self._entries = deque(dict.fromkeys(entry for entry in entries if _waits(entry)))

    def forget(self) -> None:
        """A request waits no more. Its entry stays, stale, for a while."""
        self._watched -= 1

    def oldest(self) -> Request | None:
        """The request that waits longest."""
        entries = self._entries
        while entries and not _waits(entries[0]):
            entries.popleft()
        return entries[0][3] if entries else None

    def oldest_first(self, most_seen: int) -> Iterator[Request]:
        """The requests, the longest wait first, as far as so many entries reach."""
        return (entry[3] for entry in islice(self._entries, most_seen) if _waits(entry))

    def __len__(self) -> int:
        """Entries, stale ones included: at most 2 x the most that waited + a constant."""
        return len(self._entries)


def _waits(entry: _Entry) -> bool:
    request = entry[3]
    return request.queue_entry is not None and request.preemptions == entry[2]
