"""Another policy for all that waits: as if it had been there from the start, but for the tenants' turns."""

import hypothesis.strategies as st
import pytest
from hypothesis import given
from support.requests import make_request

from rankserve.server.scheduling.budget import EngineRoom
from rankserve.server.scheduling.fair_share import FairShare
from rankserve.server.scheduling.policies import BUILT_IN, Ranking, make_policy
from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.scheduler import Scheduler, SchedulerSettings

ONE = EngineRoom(sequences=1, batched_tokens=10_000, kv_blocks=10_000)

REQUESTS = st.lists(
    st.tuples(st.integers(-1, 1), st.integers(-3, 3), st.integers(1, 30), st.integers(0, 9)), max_size=20
)


def requests_of(shapes: list[tuple[int, int, int, int]]) -> list[Request]:
    return [
        make_request(
            f"r{number}",
            arrival_s=number + arrival / 10,
            priority=priority,
            score=float(score),
            expected_tokens=float(30 - 5 * score),
            expected_tokens_p90=float(60 - 5 * score),
            replay_output_tokens=answer,
        )
        for number, (priority, score, answer, arrival) in enumerate(shapes)
    ]


def served(scheduler: Scheduler, now_s: float) -> list[str]:
    """Every waiting request in the order of service, each ending at once."""
    order = []
    while plan := scheduler.plan(now_s, ONE).started:
        order.append(plan[0].id)
        scheduler.end(plan[0])
    return order


@pytest.mark.parametrize("policy", list(BUILT_IN))
@given(shapes=REQUESTS, before=st.sampled_from(list(BUILT_IN)))
def test_the_order_is_that_of_a_queue_that_always_had_the_policy(
    policy: str, shapes: list[tuple[int, int, int, int]], before: str
) -> None:
    changed, always = Scheduler(make_policy(before)), Scheduler(make_policy(policy))
    for scheduler in (changed, always):
        for request in requests_of(shapes):
            scheduler.submit(request)
    changed.set_policy(make_policy(policy), 25.0)
    changed.check_integrity()
    assert served(changed, 25.0) == served(always, 25.0)


@pytest.mark.parametrize("policy", list(BUILT_IN))
def test_who_was_served_much_does_not_begin_again(policy: str) -> None:
    scheduler = Scheduler(make_policy("fcfs"), SchedulerSettings(fair_share=FairShare()))
    for number in range(4):
        scheduler.submit(make_request(f"a{number}", tenant="a", replay_output_tokens=5))
        scheduler.submit(make_request(f"b{number}", tenant="b", replay_output_tokens=5))
    for _ in range(2):
        (request,) = scheduler.plan(0.0, ONE).started
        scheduler.produced(request, 500 if request.tenant == "a" else 1)
        scheduler.end(request, finished=True)
    scheduler.set_policy(make_policy(policy), 1.0)
    assert [request_id[0] for request_id in served(scheduler, 1.0)] == list("bbbaaa")


def test_a_policy_that_gives_no_number_changes_nothing() -> None:
    class Nowhere(Ranking):
        def key(self, request: Request) -> float:
            return float("nan")

    scheduler = Scheduler(make_policy("fcfs"))
    for number in range(3):
        scheduler.submit(make_request(f"r{number}", arrival_s=float(number)))
    with pytest.raises(ValueError, match="not a number"):
        scheduler.set_policy(Nowhere(), 1.0)
    assert scheduler.policy.name == "fcfs"
    scheduler.check_integrity()
    assert served(scheduler, 1.0) == ["r0", "r1", "r2"]


@given(shapes=REQUESTS, tenants=st.lists(st.sampled_from("abc"), min_size=20, max_size=20))
def test_the_last_waiting_is_of_the_worst_band_and_its_busiest_tenant(
    shapes: list[tuple[int, int, int, int]], tenants: list[str]
) -> None:
    scheduler = Scheduler(make_policy("ranking"))
    for request, tenant in zip(requests_of(shapes), tenants, strict=False):
        request.tenant = tenant
        scheduler.submit(request)
    while (last := scheduler.last_waiting()) is not None:
        waiting = scheduler.waiting_requests()
        worst = [r for r in waiting if r.priority == max(r.priority for r in waiting)]
        counts = {tenant: sum(r.tenant == tenant for r in worst) for tenant in "abc"}
        assert last in worst
        assert counts[last.tenant] == max(counts.values())
        scheduler.end(last)
    assert scheduler.waiting == 0
    scheduler.check_integrity()
