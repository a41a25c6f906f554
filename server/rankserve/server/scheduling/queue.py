"""The waiting requests, and who of them is next.

Bands in order of priority; within one the due request that waits longest, else the tenant that was
served least, and of its requests the one with the smallest key. Sorted lists with one entry a request, so
adding, removing and scoring again are O(log n), and none of them leaves anything behind.
"""

from bisect import insort
from collections.abc import Callable, Iterator

from rankserve.server.scheduling.band import Band
from rankserve.server.scheduling.fair_share import FairShare
from rankserve.server.scheduling.lane import Entries, Lane
from rankserve.server.scheduling.policies import BucketPolicy, Policy
from rankserve.server.scheduling.preview import Preview
from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.starvation import Starvation

# Tenants that `place` and `last` look at.
_SAMPLE = 64


class RankedQueue:
    """An indexed priority queue of requests."""

    def __init__(
        self, policy: Policy, starvation: Starvation | None = None, fair_share: FairShare | None = None
    ) -> None:
        self._policy = policy
        self._key = policy.key
        self._in_buckets = isinstance(policy, BucketPolicy)
        self._starvation = starvation if starvation is not None and starvation.is_on else None
        self._fcfs_bound = None if self._starvation is None else self._starvation.fcfs_bound
        self._fair_share = fair_share or FairShare()
        self._bands: dict[int, Band] = {}
        self._lanes: dict[int, dict[str, Lane]] = {}
        # The bands in which somebody waits, best first.
        self._order: list[Band] = []
        self._plain = self._starvation is None and not self._in_buckets
        # The lane whose first request is simply the next one; None if there is more to look at.
        self._next: Lane | None = None

    def __len__(self) -> int:
        return sum(len(band) for band in self._order)

    def __iter__(self) -> Iterator[Request]:
        """All waiting requests, in no order."""
        return (entry[3] for band in self._order for entry in band)

    # These three are written for speed: they are what a queue costs.

    def add(self, request: Request) -> None:
        """Queues a request whose `waiting_since_*` are set.

        Raises:
            ValueError: the policy's key for it is not a number; nothing was changed.
        """
        key = self._key(request)
        if key != key:
            raise self._not_a_number(request)
        try:
            entries: Entries = self._lanes[request.priority][request.tenant]
        except KeyError:
            entries = self._lane(request)
        if self._in_buckets:
            entries = entries.lane.entries_for(request)
        if not entries.count:
            self._fill(entries)
        entry = (key, request.arrival_s, request.sequence, request, entries)
        request.queue_entry = entry
        entries.add(entry)
        if self._starvation is not None:
            entries.lane.band.watch(request, entries.lane)

    def pop(
        self, now_s: float = 0.0, step: int = 0, fits: Callable[[Request], bool] | None = None
    ) -> Request | None:
        """Takes out the request to start next. None if there is none, or it does not fit."""
        lane = self._next
        if lane is None:
            first = self.first(now_s, step)
            if first is None or (fits is not None and not fits(first)):
                return None
            self.remove(first)
            return first
        block = lane.blocks[0]
        if fits is not None and not fits(block[0][3]):
            return None
        # As `remove` does it, for the first.
        lane.count -= 1
        request = block.pop(0)[3]
        request.queue_entry = None
        if not block:
            lane.drop_block(0)
            if not lane.count:
                self._empty(lane)
        return request

    def remove(self, request: Request) -> None:
        """Takes out a waiting request, wherever it is."""
        entry = request.queue_entry
        if entry is None:
            raise RuntimeError(f"request {request.id} does not wait")
        request.queue_entry = None
        entries = entry[4]
        entries.remove(entry)
        if not entries.count:
            self._empty(entries)
        if self._starvation is not None:
            entries.lane.band.unwatch(request, entries.lane)

    def first(self, now_s: float = 0.0, step: int = 0) -> Request | None:
        """The request to start next."""
        if not self._order:
            return None
        if self._next is not None:
            return self._next.blocks[0][0][3]
        due = self._due_in_band(now_s, step)
        if due is not None:
            return due
        head = self._order[0].next_lane().first(now_s)
        due = self._due_of_tenant(now_s)
        if due is None or (self._fcfs_bound is not None and self._fcfs_bound.may_overtake(head, due)):
            return head
        return due

    def first_by_policy(self, now_s: float) -> Request | None:
        """The request to start next, if nobody were due."""
        return self._order[0].next_lane().first(now_s) if self._order else None

    def first_due(self, now_s: float, step: int) -> Request | None:
        """Whom starvation prevention puts first in the first band, if anybody.

        By bounds that hold in the band, its request that waits longest; else, by the bound that follows FCFS,
        the one that waits longest of the tenant whose turn it is.
        """
        if self._starvation is None or not self._order:
            return None
        return self._due_in_band(now_s, step) or self._due_of_tenant(now_s)

    def _due_in_band(self, now_s: float, step: int) -> Request | None:
        waits = self._order[0].waits
        oldest = None if waits is None else waits.oldest()
        if oldest is None or self._starvation is None or not self._starvation.is_due(oldest, now_s, step):
            return None
        return oldest

    def _due_of_tenant(self, now_s: float) -> Request | None:
        if self._fcfs_bound is None or (waits := self._order[0].next_lane().waits) is None:
            return None
        oldest = waits.oldest()
        return None if oldest is None or not self._fcfs_bound.is_due(oldest, now_s) else oldest

    def rekey(self, request: Request) -> None:
        """Moves a waiting request whose key changed to its place.

        Raises:
            ValueError: the policy's key for it is not a number; nothing was changed.
        """
        key = self._key(request)
        if key != key:
            raise self._not_a_number(request)
        old = request.queue_entry
        if old is None:
            raise RuntimeError(f"request {request.id} does not wait")
        entries = self._lane(request).entries_for(request)
        if key == old[0] and entries is old[4]:
            return
        if not entries:
            self._fill(entries)
        entry = (key, request.arrival_s, request.sequence, request, entries)
        request.queue_entry = entry
        entries.add(entry)
        old[4].remove(old)
        if not old[4]:
            self._empty(old[4])

    def charge_start(self, request: Request) -> None:
        """Charges a request's tenant for its prompt, when it starts for the first time."""
        lane = self._lane(request)
        lane.band.turns.last_counter = lane.counter
        if not request.preemptions and not request.restarts:
            lane.counter += self._fair_share.prompt_token_weight * request.prompt_tokens

    def charge_output(self, request: Request, tokens: int) -> None:
        """Charges a request's tenant for tokens it produced."""
        try:
            lane = self._lanes[request.priority][request.tenant]
        except KeyError:
            lane = self._lane(request)
        lane.counter += self._fair_share.output_token_weight * tokens

    def place(self, request: Request, now_s: float) -> int:
        """About how many waiting requests are ahead of this one.

        Those of better bands, and of its own those with a smaller key, whoever is due or whose tenant's turn
        it is. Exact for up to 64 tenants of a band and some hundred thousand requests of each; beyond that,
        64 of its tenants stand for all.
        """
        if request.queue_entry is None:
            raise RuntimeError(f"request {request.id} does not wait")
        own = self._bands[request.priority]
        if own.sole is not None and self._order[0] is own:
            return own.sole.ahead_of(request.queue_entry, now_s)
        ahead = sum(band.about(_SAMPLE) for band in self._order if band < own)
        lanes = own.some_lanes(_SAMPLE)
        smaller = sum(lane.ahead_of(request.queue_entry, now_s) for lane in lanes)
        return ahead + round(smaller * len(own.lanes) / len(lanes))

    def preview(self, now_s: float, step: int) -> Iterator[Request]:
        """The waiting requests in the order in which they would start now; see `preview`.

        Take from it what is needed at once: it must not outlive a change of the queue.
        """
        preview = Preview(self._starvation, self._fair_share, now_s, step)
        return (request for band in self._order for request in preview.of(band))

    def last(self) -> Request | None:
        """A request far from its turn: of the worst band and its tenant with the most waiting.

        Of up to 64 tenants, and where a policy has buckets of the one that holds the most.
        """
        if not self._order:
            return None
        lanes = [lane for lane in self._order[-1].some_lanes(_SAMPLE) if lane.busy]
        if not lanes:
            # None of the sampled tenants has anything waiting.
            lanes = [lane for lane in self._order[-1].lanes.values() if lane.busy]
        largest = max(lanes, key=lambda lane: sum(map(len, lane.all_entries())))
        return max(largest.all_entries(), key=len).blocks[-1][-1][3]

    def carry_turns(self, before: "RankedQueue") -> None:
        """Goes on from what each tenant was served in another queue. This one must be empty."""
        for priority, lanes in before._lanes.items():
            for tenant, lane in lanes.items():
                self._band(priority).lane(tenant).counter = lane.counter
            self._bands[priority].turns.last_counter = before._bands[priority].turns.last_counter

    def served(self, request: Request) -> float:
        """What the tenant of a request was served so far."""
        return self._lane(request).counter

    def check_integrity(self) -> None:
        """Raises RuntimeError if the queue's books contradict each other."""
        if sorted(band for band in self._bands.values() if band.busy_lanes) != self._order:
            raise RuntimeError("scheduler integrity: bands with waiting requests are not those listed")
        for band in self._bands.values():
            band.check_integrity()

    def _lane(self, request: Request) -> Lane:
        band = self._band(request.priority)
        tenant = request.tenant if self._fair_share.enabled else ""
        lane = band.lanes.get(tenant)
        if lane is None:
            lane = band.lane(tenant)
            self._find_next()
        return lane

    def _band(self, priority: int) -> Band:
        band = self._bands.get(priority)
        if band is None:
            band = self._bands[priority] = Band(priority, self._policy, self._starvation)
            self._lanes[priority] = band.lanes
        return band

    def _find_next(self) -> None:
        self._next = self._order[0].sole if self._plain and self._order else None

    def _fill(self, entries: Entries) -> None:
        """Entries that were none are about to get one."""
        lane = entries.lane
        if not lane.busy:
            band = lane.band
            if band.sole is None:
                band.turns.join(lane)
            if not band.busy_lanes:
                insort(self._order, band)
            band.busy_lanes += 1
            self._find_next()
        lane.busy += 1

    def _empty(self, entries: Entries) -> None:
        """The last entry is gone."""
        lane = entries.lane
        lane.busy -= 1
        if not lane.busy:
            band = lane.band
            band.busy_lanes -= 1
            if not band.busy_lanes:
                self._order.remove(band)
            self._find_next()

    def _not_a_number(self, request: Request) -> ValueError:
        return ValueError(f"policy {self._policy.name} gave request {request.id} a key that is not a number")
