"""Who would start next, and after them, if all were to start now: for people who watch the queue.

Nothing is changed, and little more is looked at than is shown.
"""

from collections.abc import Iterator
from copy import copy
from heapq import heapify, heappop, heappush, heapreplace
from itertools import islice
from typing import Any, TypeVar

from rankserve.server.scheduling.band import Band
from rankserve.server.scheduling.due import WaitOrder
from rankserve.server.scheduling.fair_share import FairShare
from rankserve.server.scheduling.lane import BucketLane, Entry, Lane
from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.starvation import Starvation

_Item = TypeVar("_Item", bound=tuple[Any, ...])


class Preview:
    """The order in which waiting requests would start.

    Args:
        starvation: who is due; None if nobody can be.
        fair_share: what a start costs its tenant.
        now_s, step: the moment.
    """

    def __init__(self, starvation: Starvation | None, fair_share: FairShare, now_s: float, step: int) -> None:
        self._starvation = starvation
        self._fair_share = fair_share
        self._now_s = now_s
        self._step = step
        bound = None if starvation is None else starvation.fcfs_bound
        # Each start changes what may overtake; here that happens to a copy.
        self._bound = None if bound is None else copy(bound)

    def of(self, band: Band) -> Iterator[Request]:
        """The waiting requests of a band, the next one first."""
        taken: set[int] = set()
        waits_in_band = _Line(_oldest_first(band.waits), taken)
        turns = _Turns(band)
        lanes: dict[int, tuple[_Line, _Line]] = {}
        while (lane := turns.first()) is not None:
            if lane.number not in lanes:
                lanes[lane.number] = _Line(self._by_key(lane), taken), _Line(_oldest_first(lane.waits), taken)
            by_key, waits = lanes[lane.number]
            due_in_band = self._if_due(waits_in_band.first())
            due = due_in_band or self._if_due_of_tenant(waits.first())
            request = due_in_band or self._choose(by_key.first(), due)
            if request is None:
                turns.drop_first()
                continue
            yield request
            taken.add(request.sequence)
            if self._bound is not None and due is not None:
                self._bound.spend(request, due)
            if not request.preemptions and not request.restarts:
                tenant = request.tenant if self._fair_share.enabled else ""
                turns.charge(band.lanes[tenant], self._fair_share.prompt_token_weight * request.prompt_tokens)

    def _choose(self, head: Request | None, due: Request | None) -> Request | None:
        if due is None or head is None or self._bound is None or self._bound.may_overtake(head, due):
            return head
        return due

    def _if_due(self, oldest: Request | None) -> Request | None:
        if oldest is None or self._starvation is None:
            return None
        return oldest if self._starvation.is_due(oldest, self._now_s, self._step) else None

    def _if_due_of_tenant(self, oldest: Request | None) -> Request | None:
        if oldest is None or self._bound is None:
            return None
        return oldest if self._bound.is_due(oldest, self._now_s) else None

    def _by_key(self, lane: Lane) -> Iterator[Request]:
        entries = self._by_bucket(lane) if isinstance(lane, BucketLane) else iter(lane)
        return (entry[3] for entry in entries)

    def _by_bucket(self, lane: BucketLane) -> Iterator[Entry]:
        # As `heapq.merge`, but most buckets give nothing and never become an iterator.
        firsts = [(lane.place(e.blocks[0][0], self._now_s), e) for e in lane.all_entries() if e]
        heapify(firsts)
        opened: dict[int, Iterator[Entry]] = {}
        while firsts:
            place, entries = firsts[0]
            yield place[2]
            if id(entries) not in opened:
                opened[id(entries)] = islice(entries, 1, None)
            following = next(opened[id(entries)], None)
            if following is None:
                heappop(firsts)
            else:
                heapreplace(firsts, (lane.place(following, self._now_s), entries))


class _Turns:
    """Whose turn it is among the tenants of a band, as those shown are charged."""

    def __init__(self, band: Band) -> None:
        self._paid: dict[int, float] = {}
        # Counters only grow, so an entry's is at most what its lane has now: nobody before it is missed.
        self._rest = iter(()) if band.sole else heap_in_order(band.turns.entries())
        self._next = next(self._rest, None)
        self._seen: list[tuple[float, int, Lane]] = []
        if band.sole is not None:
            self._seen.append((band.sole.counter, band.sole.number, band.sole))

    def first(self) -> Lane | None:
        while True:
            while self._next is not None and (not self._seen or self._next < self._seen[0]):
                lane = self._next[2]
                if lane.busy:
                    heappush(self._seen, (self._counter(lane), lane.number, lane))
                self._next = next(self._rest, None)
            if not self._seen:
                return None
            counter, number, lane = self._seen[0]
            if counter >= self._counter(lane):
                return lane
            heapreplace(self._seen, (self._counter(lane), number, lane))

    def drop_first(self) -> None:
        heappop(self._seen)

    def charge(self, lane: Lane, cost: float) -> None:
        self._paid[lane.number] = self._paid.get(lane.number, 0.0) + cost

    def _counter(self, lane: Lane) -> float:
        return lane.counter + self._paid.get(lane.number, 0.0)


class _Line:
    """Requests in order, without those that were taken from another line."""

    def __init__(self, requests: Iterator[Request], taken: set[int]) -> None:
        self._requests = requests
        self._taken = taken
        self._first = next(requests, None)

    def first(self) -> Request | None:
        while self._first is not None and self._first.sequence in self._taken:
            self._first = next(self._requests, None)
        return self._first


def heap_in_order(heap: list[_Item]) -> Iterator[_Item]:
    """The items of a binary heap, the smallest first."""
    candidates = [(heap[0], 0)] if heap else []
    while candidates:
        item, index = heappop(candidates)
        yield item
        for child in (2 * index + 1, 2 * index + 2):
            if child < len(heap):
                heappush(candidates, (heap[child], child))


def _oldest_first(waits: WaitOrder | None) -> Iterator[Request]:
    return iter(waits or ())
