"""Who has room in the queue."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from rankserve.server.admission import Admission, WaitingLimits
from rankserve.server.errors import QueueFull, QuotaExceeded
from rankserve.server.requests import RequestSpec


def spec(size_bytes: int = 10, tenant: str = "") -> RequestSpec:
    return RequestSpec("r", b"", size_bytes, "p", "p", tenant=tenant)


def admission(limits: WaitingLimits, tenants: WaitingLimits | None = None) -> Admission:
    return Admission(limits, lambda tenant: tenants or WaitingLimits(), lambda: 0, lambda: 2.5)


@pytest.mark.parametrize(
    ("limits", "says"),
    [(WaitingLimits(requests=3), "3 requests wait"), (WaitingLimits(size_bytes=30), "0 KiB of prompts wait")],
)
def test_the_queue_takes_exactly_its_limit(limits: WaitingLimits, says: str) -> None:
    queue = admission(limits)
    for _ in range(3):
        queue.check_queue(spec())
        queue.enters(spec())
    with pytest.raises(QueueFull, match=says) as full:
        queue.check_queue(spec())
    assert full.value.retry_after_s == 2.5
    assert not queue.has_room(spec())
    queue.leaves(spec())
    queue.check_queue(spec())


@pytest.mark.parametrize("limits", [WaitingLimits(requests=2), WaitingLimits(size_bytes=20)])
def test_a_tenant_that_has_its_share_waiting_leaves_room_for_others(limits: WaitingLimits) -> None:
    queue = admission(WaitingLimits(), limits)
    for _ in range(2):
        queue.check_tenant(spec(tenant="a"))
        queue.enters(spec(tenant="a"))
    with pytest.raises(QuotaExceeded) as full:
        queue.check_tenant(spec(tenant="a"))
    assert full.value.subject == "tenant:a"
    queue.check_tenant(spec(tenant="b"))
    queue.leaves(spec(tenant="a"))
    queue.check_tenant(spec(tenant="a"))


def test_room_without_some_that_wait() -> None:
    queue = admission(WaitingLimits(requests=3, size_bytes=100))
    small, big = spec(10), spec(80)
    for waiting in (small, big, small):
        queue.enters(waiting)
    assert queue.has_room(small, without=[small])
    assert not queue.has_room(spec(50), without=[small])
    assert queue.has_room(spec(50), without=[big])
    assert not queue.has_room(spec(101), without=[small, big, small])


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abc"), st.booleans())))
def test_the_books_always_balance(moves: list[tuple[int, str, bool]]) -> None:
    queue = admission(WaitingLimits())
    waiting: list[RequestSpec] = []
    for size_bytes, tenant, enters in moves:
        if enters or not waiting:
            waiting.append(spec(size_bytes, tenant))
            queue.enters(waiting[-1])
        else:
            queue.leaves(waiting.pop(size_bytes % len(waiting)))
        assert queue.waiting == len(waiting)
        assert queue.waiting_bytes == sum(s.size_bytes for s in waiting)
        for tenant in "abc":
            own = [s for s in waiting if s.tenant == tenant]
            limit = admission(WaitingLimits(), WaitingLimits(requests=len(own)))
            limit._tenants = queue._tenants
            with pytest.raises(QuotaExceeded):
                limit.check_tenant(spec(tenant=tenant))
    for s in waiting:
        queue.leaves(s)
    assert (queue.waiting, queue.waiting_bytes, queue._tenants) == (0, 0, {})
