"""The waiting requests of one priority: a lane for each tenant."""

from collections.abc import Iterator
from itertools import islice

from rankserve.server.scheduling.due import WaitOrder
from rankserve.server.scheduling.fair_share import Turns
from rankserve.server.scheduling.lane import BucketLane, Entry, Lane
from rankserve.server.scheduling.policies import BucketPolicy, Policy
from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.starvation import Starvation

# Lanes that may be added before idle ones are forgotten.
_IDLE_TENANTS = 1024


class Band:
    """Who waits at one priority.

    Attributes:
        priority: of its requests.
        lanes: by tenant.
        sole: the only lane, as long as there has been no more than one.
        turns: the order of the lanes once there were several.
        busy_lanes: how many have requests.
        waits: its requests by how long they wait, if a bound holds in the whole band.
    """

    __slots__ = (
        "_forget_at",
        "_lanes_wait",
        "_policy",
        "_seen",
        "busy_lanes",
        "lanes",
        "priority",
        "sole",
        "turns",
        "waits",
    )

    def __init__(self, priority: int, policy: Policy, starvation: Starvation | None) -> None:
        self.priority = priority
        self.lanes: dict[str, Lane] = {}
        self.sole: Lane | None = None
        self.turns = Turns()
        self.busy_lanes = 0
        self.waits = WaitOrder() if starvation is not None and starvation.bounds_band else None
        self._lanes_wait = starvation is not None and starvation.fcfs_bound is not None
        self._policy = policy
        self._seen = 0
        self._forget_at = _IDLE_TENANTS

    def __lt__(self, other: "Band") -> bool:
        return self.priority < other.priority

    def __len__(self) -> int:
        return sum(len(entries) for lane in self.lanes.values() for entries in lane.all_entries())

    def __iter__(self) -> Iterator[Entry]:
        """The entries, in no order."""
        return (entry for lane in self.lanes.values() for entries in lane.all_entries() for entry in entries)

    def some_lanes(self, most: int) -> list[Lane]:
        """An even sample of its lanes; all if there are no more than `most`."""
        stride = -(-len(self.lanes) // most)
        return list(islice(self.lanes.values(), 0, None, max(stride, 1)))

    def about(self, most_lanes: int) -> int:
        """How many wait, estimated from a sample of lanes if there are more than so many."""
        lanes = self.some_lanes(most_lanes)
        counted = sum(len(entries) for lane in lanes for entries in lane.all_entries())
        return round(counted * len(self.lanes) / len(lanes)) if lanes else 0

    def lane(self, tenant: str) -> Lane:
        """The tenant's lane, made where there is none."""
        lane = self.lanes.get(tenant)
        return self._add_lane(tenant) if lane is None else lane

    def watch(self, request: Request, lane: Lane) -> None:
        """A request of this lane begins to wait."""
        for waits in (self.waits, lane.waits):
            if waits is not None:
                waits.watch(request)

    def unwatch(self, request: Request, lane: Lane) -> None:
        """A request of this lane waits no more."""
        for waits in (self.waits, lane.waits):
            if waits is not None:
                waits.forget(request)

    def next_lane(self) -> Lane:
        """Whose turn it is by fair share; somebody must be waiting."""
        lane = self.turns.first() if self.sole is None else self.sole
        if lane is None:
            raise RuntimeError(f"band {self.priority} counts {self.busy_lanes} lanes with requests, has none")
        return lane

    def check_integrity(self) -> None:
        """Raises RuntimeError if its books contradict each other."""
        for lane in self.lanes.values():
            for entries in lane.all_entries():
                entries.check_integrity()
            if lane.busy != sum(1 for entries in lane.all_entries() if entries):
                raise RuntimeError("scheduler integrity: a lane miscounts its entries")
            if self.sole is None and lane.busy and not lane.has_turn:
                raise RuntimeError("scheduler integrity: a tenant with waiting requests gets no turn")
        if self.busy_lanes != sum(1 for lane in self.lanes.values() if lane.busy):
            raise RuntimeError("scheduler integrity: a band miscounts its lanes")

    def _add_lane(self, tenant: str) -> Lane:
        if len(self.lanes) >= self._forget_at:
            self._forget_idle()
        # Tenants not seen before start at the others' level, and so do those that were forgotten.
        counter = self.turns.floor() if self.lanes else 0.0
        if isinstance(self._policy, BucketPolicy):
            lane: Lane = BucketLane(self, self._seen, counter, self._policy)
        else:
            lane = Lane(self, self._seen, counter)
        if self._lanes_wait:
            lane.waits = WaitOrder()
        if self.sole is not None:
            if self.sole.busy:
                self.turns.join(self.sole)
            self.sole = None
        elif not self._seen:
            self.sole = lane
        self._seen += 1
        self.lanes[tenant] = lane
        return lane

    def _forget_idle(self) -> None:
        """Drops the half of the idle lanes that were served least, and so have the least to make up for."""
        idle = sorted((lane.counter, tenant) for tenant, lane in self.lanes.items() if not lane.busy)
        for _, tenant in idle[: len(idle) // 2]:
            del self.lanes[tenant]
        self._forget_at = len(self.lanes) + _IDLE_TENANTS
