"""Waiting requests in the order in which they began to wait: where starvation prevention looks."""

from collections import OrderedDict
from collections.abc import Iterator
from heapq import merge

from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.sorted_blocks import SortedBlocks


class WaitOrder:
    """Requests by how long they wait. Whoever waits longest in seconds has also seen the most steps.

    Nearly all begin to wait after all others, and are kept in that order. The few that an engine gave back
    have waited since they arrived, and are sorted among themselves.
    """

    __slots__ = ("_given_back", "_in_order", "_newest")

    def __init__(self) -> None:
        self._in_order: OrderedDict[int, Request] = OrderedDict()
        self._newest = (0.0, 0)
        self._given_back: SortedBlocks[tuple[float, int, Request]] = SortedBlocks()

    def watch(self, request: Request) -> None:
        """A request begins to wait; its `waiting_since_s` stays as long as it does. O(1) for the newest."""
        since = request.waiting_since_s, request.sequence
        if since > self._newest or not self._in_order:
            self._newest = since
            self._in_order[request.sequence] = request
        else:
            self._given_back.add((*since, request))

    def forget(self, request: Request) -> None:
        """A request waits no more."""
        if self._in_order.pop(request.sequence, None) is None:
            self._given_back.remove((request.waiting_since_s, request.sequence, request))

    def oldest(self) -> Request | None:
        """The request that waits longest."""
        if self._given_back:
            return next(iter(self))
        return next(iter(self._in_order.values()), None)

    def __iter__(self) -> Iterator[Request]:
        """The requests, the longest wait first. Must not outlive a change."""
        in_order = iter(self._in_order.values())
        if not self._given_back:
            return in_order
        given_back = (entry[2] for entry in self._given_back)
        return merge(in_order, given_back, key=lambda request: (request.waiting_since_s, request.sequence))

    def __len__(self) -> int:
        return len(self._in_order) + len(self._given_back)

    def check_integrity(self) -> None:
        """Raises RuntimeError if requests are out of order or do not wait."""
        self._given_back.check_integrity()
        waits = [(request.waiting_since_s, request.sequence) for request in self]
        if waits != sorted(waits):
            raise RuntimeError("scheduler integrity: those that wait longest do not come first")
        if any(request.queue_entry is None for request in self):
            raise RuntimeError("scheduler integrity: the wait of a request that does not wait is watched")
