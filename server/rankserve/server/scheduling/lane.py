"""The waiting requests of one tenant in one band, by key."""

from functools import partial
from typing import TYPE_CHECKING

from rankserve.server.scheduling.due import WaitOrder
from rankserve.server.scheduling.policies import BucketPolicy
from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.sorted_blocks import SortedBlocks

if TYPE_CHECKING:
    from rankserve.server.scheduling.band import Band

# (key, arrival, sequence, request, where it is): the sequence is unique, so requests are never compared.
Entry = tuple[float, float, int, Request, "Entries"]


class Entries(SortedBlocks[Entry]):
    """Entries by key.

    Attributes:
        lane: whose requests these are.
    """

    __slots__ = ("lane",)

    def __init__(self, lane: "Lane") -> None:
        super().__init__()
        self.lane = lane

    def check_integrity(self) -> None:
        """Raises RuntimeError if an entry is out of order, or not the one that its request knows."""
        super().check_integrity()
        if any(entry[3].queue_entry is not entry or entry[4] is not self for entry in self):
            raise RuntimeError("scheduler integrity: a request does not know its entry")


class Lane(Entries):
    """A tenant's requests by key.

    Attributes:
        band: of its requests.
        counter: virtual tokens the tenant was served in this band (see `fair_share`).
        number: the tenant's place in the order in which the band first saw them.
        busy: how many of its `Entries` have any.
        has_turn: whether it is among those that fair share chooses from.
        waits: its requests by how long they wait, if a bound holds among them.
    """

    __slots__ = ("band", "busy", "counter", "has_turn", "number", "waits")

    def __init__(self, band: "Band", number: int, counter: float) -> None:
        super().__init__(self)
        self.band = band
        self.number = number
        self.counter = counter
        self.busy = 0
        self.has_turn = False
        self.waits: WaitOrder | None = None

    def first(self, now_s: float) -> Request:
        return self.blocks[0][0][3]

    def entries_for(self, request: Request) -> Entries:
        """Where a request belongs."""
        return self

    def all_entries(self) -> list[Entries]:
        return [self]

    def ahead_of(self, entry: Entry, now_s: float) -> int:
        """About how many of its requests come before one that may be another lane's."""
        return self.rank(entry)


class BucketLane(Lane):
    """A tenant's requests by bucket, for orders that change with time. Itself it stays empty."""

    __slots__ = ("_buckets", "_policy")

    def __init__(self, band: "Band", number: int, counter: float, policy: BucketPolicy) -> None:
        super().__init__(band, number, counter)
        self._policy = policy
        self._buckets: dict[float, Entries] = {}

    def first(self, now_s: float) -> Request:
        bucket_key = self._policy.bucket_key
        firsts = ((bucket, entries.blocks[0][0]) for bucket, entries in self._buckets.items() if entries)
        return min((bucket_key(bucket, entry[1], now_s), bucket, entry) for bucket, entry in firsts)[2][3]

    def place(self, entry: Entry, now_s: float) -> tuple[float, float, Entry]:
        """What `first` compares."""
        return self._place_in(self._policy.bucket(entry[3]), now_s, entry)

    def entries_for(self, request: Request) -> Entries:
        bucket = self._policy.bucket(request)
        entries = self._buckets.get(bucket)
        if entries is None:
            entries = self._buckets[bucket] = Entries(self)
        return entries

    def all_entries(self) -> list[Entries]:
        return list(self._buckets.values())

    def ahead_of(self, entry: Entry, now_s: float) -> int:
        place = self.place(entry, now_s)
        return sum(
            e.rank(place, partial(self._place_in, bucket, now_s)) for bucket, e in self._buckets.items()
        )

    def _place_in(self, bucket: float, now_s: float, entry: Entry) -> tuple[float, float, Entry]:
        return self._policy.bucket_key(bucket, entry[1], now_s), bucket, entry
