"""The waiting requests of one tenant in one band: heaps whose first entry is always live.

An entry leaves a heap in two ways. At the top it is popped; anywhere else it stays, stale, until it comes to
the top or until stale entries are more than half of the heap, which is then rebuilt without them.
"""

from collections.abc import Iterator
from heapq import heapify, heappop
from typing import TYPE_CHECKING

from rankserve.server.scheduling.due import WaitOrder
from rankserve.server.scheduling.policies import BucketPolicy
from rankserve.server.scheduling.request import Request

if TYPE_CHECKING:
    from rankserve.server.scheduling.band import Band

# Stale entries that no heap is rebuilt for.
STALE_ALLOWED = 64

# (key, arrival, sequence, request, heap it is in): the sequence is unique, so requests are never compared.
# The entry is live as long as it is the one that its request knows as its own.
Entry = tuple[float, float, int, Request, "Entries"]


class Entries:
    """A heap of entries with lazy deletion.

    Attributes:
        lane: whose requests these are.
        heap: the entries.
        stale: how many of them are.
    """

    __slots__ = ("heap", "lane", "stale")

    def __init__(self, lane: "Lane") -> None:
        self.lane = lane
        self.heap: list[Entry] = []
        self.stale = 0

    def __len__(self) -> int:
        return len(self.heap) - self.stale

    def __iter__(self) -> Iterator[Entry]:
        """The live entries, in no order."""
        return (entry for entry in self.heap if entry[3].queue_entry is entry)

    def discard(self, entry: Entry) -> None:
        """Takes out an entry that its request has disowned."""
        heap = self.heap
        if heap[0] is entry:
            heappop(heap)
            if self.stale:
                self.drop_stale()
        else:
            self.stale += 1
            if 2 * self.stale > len(heap) + STALE_ALLOWED:
                heap[:] = self
                heapify(heap)
                self.stale = 0

    def drop_stale(self) -> None:
        """Makes the first entry a live one."""
        heap = self.heap
        while self.stale and heap[0][3].queue_entry is not heap[0]:
            heappop(heap)
            self.stale -= 1

    def check_integrity(self) -> None:
        """Raises RuntimeError if its count is wrong, its first entry stale or too many are."""
        live = sum(1 for _ in self)
        if live != len(self):
            raise RuntimeError(f"scheduler integrity: {live} entries live and {len(self)} counted")
        if self.heap and self.heap[0][3].queue_entry is not self.heap[0]:
            raise RuntimeError("scheduler integrity: a heap begins with a stale entry")
        if 2 * self.stale > len(self.heap) + STALE_ALLOWED + 1:
            raise RuntimeError(f"scheduler integrity: {self.stale} of {len(self.heap)} entries are stale")


class Lane(Entries):
    """A tenant's requests by key.

    Attributes:
        band: of its requests.
        counter: virtual tokens the tenant was served in this band (see `fair_share`).
        number: the tenant's place in the order in which the band first saw them.
        busy_heaps: how many of its heaps have entries.
        has_turn: whether it is among those that fair share chooses from.
        waits: its requests by how long they wait, if a bound holds among them.
    """

    __slots__ = ("band", "busy_heaps", "counter", "has_turn", "number", "waits")

    def __init__(self, band: "Band", number: int, counter: float) -> None:
        super().__init__(self)
        self.band = band
        self.number = number
        self.counter = counter
        self.busy_heaps = 0
        self.has_turn = False
        self.waits: WaitOrder | None = None

    def first(self, now_s: float) -> Request:
        return self.heap[0][3]

    def heap_for(self, request: Request) -> Entries:
        return self

    def heaps(self) -> list[Entries]:
        return [self]


class BucketLane(Lane):
    """A tenant's requests by bucket, for orders that change with time. Its own heap stays empty."""

    __slots__ = ("_buckets", "_policy")

    def __init__(self, band: "Band", number: int, counter: float, policy: BucketPolicy) -> None:
        super().__init__(band, number, counter)
        self._policy = policy
        self._buckets: dict[float, Entries] = {}

    def first(self, now_s: float) -> Request:
        bucket_key = self._policy.bucket_key
        firsts = ((bucket, entries.heap[0]) for bucket, entries in self._buckets.items() if entries.heap)
        return min((bucket_key(bucket, entry[1], now_s), bucket, entry) for bucket, entry in firsts)[2][3]

    def place(self, entry: Entry, now_s: float) -> tuple[float, float, Entry]:
        """What `first` compares."""
        bucket = self._policy.bucket(entry[3])
        return self._policy.bucket_key(bucket, entry[1], now_s), bucket, entry

    def heap_for(self, request: Request) -> Entries:
        bucket = self._policy.bucket(request)
        entries = self._buckets.get(bucket)
        if entries is None:
            entries = self._buckets[bucket] = Entries(self)
        return entries

    def heaps(self) -> list[Entries]:
        return list(self._buckets.values())
