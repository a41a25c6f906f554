"""Who of a band's waiting requests is due."""

from heapq import heapify, heappop, heappush

from rankserve.server.scheduling.lane import STALE_ALLOWED
from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.starvation import Starvation

# (time or step, sequence, preemptions, request): a request waits once, and once more for each preemption,
# so the third tells entries of earlier waits.
_Entry = tuple[float, int, int, Request]


class DueIndex:
    """Waiting requests by the time and by the step since which they wait, as far as those bounds are on."""

    __slots__ = ("_by_step", "_by_time", "_starvation", "_watched")

    def __init__(self, starvation: Starvation) -> None:
        self._starvation = starvation
        self._by_time: list[_Entry] = []
        self._by_step: list[_Entry] = []
        self._watched = 0

    def watch(self, request: Request) -> None:
        """A request begins to wait."""
        self._watched += 1
        if self._starvation.bounds_time:
            entry = (request.waiting_since_s, request.sequence, request.preemptions, request)
            heappush(self._by_time, entry)
            if len(self._by_time) > self._most():
                self._by_time = [entry for entry in self._by_time if _waits(entry)]
                heapify(self._by_time)
        if self._starvation.threshold_steps:
            step = request.waiting_since_step
            heappush(self._by_step, (step, request.sequence, request.preemptions, request))
            if len(self._by_step) > self._most():
                self._by_step = [entry for entry in self._by_step if _waits(entry)]
                heapify(self._by_step)

    def forget(self) -> None:
        """A request waits no more. Its entries stay, stale, for a while."""
        self._watched -= 1

    def first(self, now_s: float, step: int) -> Request | None:
        """The due request that waits longest; None if nobody is due."""
        due: Request | None = None
        by_time, by_step = self._by_time, self._by_step
        while by_time and not _waits(by_time[0]):
            heappop(by_time)
        if by_time and self._starvation.is_late(by_time[0][3], now_s):
            due = by_time[0][3]
        while by_step and not _waits(by_step[0]):
            heappop(by_step)
        if by_step and self._starvation.is_passed_over(by_step[0][3], step):
            other = by_step[0][3]
            if due is None or (other.waiting_since_s, other.sequence) < (due.waiting_since_s, due.sequence):
                due = other
        return due

    def __len__(self) -> int:
        """Entries of the larger index, stale ones included: at most 2 x the most that waited + a constant."""
        return max(len(self._by_time), len(self._by_step))

    def _most(self) -> int:
        return 2 * self._watched + STALE_ALLOWED


def _waits(entry: _Entry) -> bool:
    request = entry[3]
    return request.queue_entry is not None and request.preemptions == entry[2]
