"""The waiting requests in the order in which they are to start.

Priority band first; within a band the promoted requests by the moment they became due, then the others by
policy key. Sorted lists rather than heaps: removal is exact (no stale entries to bound), and a request's
place costs one bisection.
"""

from collections.abc import Iterator

from sortedcontainers import SortedDict, SortedKeyList

from rankserve.server.scheduling.policies import Policy
from rankserve.server.scheduling.request import Request


class _Band:
    """The waiting requests of one priority."""

    __slots__ = ("by_key", "promoted")

    def __init__(self) -> None:
        # (key, arrival, sequence, request): the sequence is unique, so requests are never compared.
        self.by_key = SortedKeyList(key=lambda entry: entry[:3])
        self.promoted = SortedKeyList(key=lambda r: (r.due_s, r.arrival_s, r.sequence))

    def __len__(self) -> int:
        return len(self.by_key) + len(self.promoted)

    def first(self) -> Request:
        request: Request = self.promoted[0] if self.promoted else self.by_key[0][3]
        return request


class RankedQueue:
    """An indexed priority queue. Adding, removing, promoting, re-keying and placing are O(log n)."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._bands: SortedDict = SortedDict()
        self._keys: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, request: Request) -> bool:
        return request.id in self._keys

    def __iter__(self) -> Iterator[Request]:
        """All waiting requests, in order."""
        for band in self._bands.values():
            yield from band.promoted
            for *_, request in band.by_key:
                yield request

    def add(self, request: Request) -> None:
        key = self._policy.key(request)
        if key != key:
            raise ValueError(
                f"policy {self._policy.name} gave request {request.id} a key that is not a number"
            )
        self._keys[request.id] = key
        band = self._bands.get(request.priority)
        if band is None:
            band = self._bands[request.priority] = _Band()
        band.by_key.add(_entry(key, request))

    def remove(self, request: Request) -> None:
        band = self._bands[request.priority]
        key = self._keys.pop(request.id)
        if request.due_s is None:
            band.by_key.remove(_entry(key, request))
        else:
            band.promoted.remove(request)
        if not band:
            del self._bands[request.priority]

    def promote(self, request: Request, due_s: float) -> None:
        """Moves a request before all of its band that were not promoted or became due later."""
        band = self._bands[request.priority]
        band.by_key.remove(_entry(self._keys[request.id], request))
        request.due_s = due_s
        band.promoted.add(request)

    def first(self) -> Request | None:
        """The request to start next."""
        if not self._bands:
            return None
        first: Request = self._bands.peekitem(0)[1].first()
        return first

    def place(self, request: Request) -> int:
        """How many waiting requests are ahead of this one."""
        band = self._bands[request.priority]
        ahead = sum(len(other) for priority, other in self._bands.items() if priority < request.priority)
        if request.due_s is not None:
            return int(ahead + band.promoted.index(request))
        entry = _entry(self._keys[request.id], request)
        return int(ahead + len(band.promoted) + band.by_key.bisect_left(entry))


def _entry(key: float, request: Request) -> tuple[float, float, int, Request]:
    return key, request.arrival_s, request.sequence, request
