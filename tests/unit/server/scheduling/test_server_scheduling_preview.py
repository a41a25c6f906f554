"""What people are shown of the queue is the order in which it starts requests."""

from itertools import count, islice

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from support.requests import make_request

from rankserve.server.scheduling.budget import EngineRoom
from rankserve.server.scheduling.fair_share import FairShare
from rankserve.server.scheduling.policies import Policy, make_policy
from rankserve.server.scheduling.preview import heap_in_order
from rankserve.server.scheduling.queue import RankedQueue
from rankserve.server.scheduling.request import Phase, Request
from rankserve.server.scheduling.scheduler import Scheduler, SchedulerSettings
from rankserve.server.scheduling.starvation import StarvationSettings

POLICIES = ["fcfs", "ranking", "bounded_ranking", "hrrn", "mlfq", "aged_ranking"]
NOW_S = 100.0


def room(sequences: int) -> EngineRoom:
    return EngineRoom(sequences=sequences, batched_tokens=10**9, kv_blocks=10**9)


@st.composite
def schedulers(draw: st.DrawFn) -> Scheduler:
    """A scheduler after some life: starts, tokens, evictions, ends, new scores."""
    scheduler = Scheduler(
        make_policy(draw(st.sampled_from(POLICIES))),
        SchedulerSettings(
            starvation=StarvationSettings(
                threshold_steps=draw(st.sampled_from([0, 2])), max_wait_s=draw(st.sampled_from([None, 40.0]))
            ),
            fair_share=FairShare(enabled=draw(st.booleans())),
        ),
    )
    random = draw(st.randoms(use_true_random=False))
    requests = []
    numbers = count()
    now_s = 0.0
    for _ in range(draw(st.integers(1, 12))):
        now_s += random.uniform(0, 8)
        for _ in range(random.randrange(12)):
            requests.append(
                make_request(
                    str(next(numbers)),
                    arrival_s=now_s,
                    priority=random.randrange(2),
                    tenant=random.choice("abc"),
                    prompt_tokens=random.randrange(1, 200),
                )
            )
            scheduler.submit(requests[-1])
        scored = [r for r in requests if r.phase is not Phase.ENDED and random.random() < 0.5]
        lengths = [float(random.randrange(1, 300)) for _ in scored]
        scheduler.rescore((r, -n, n, 2 * n) for r, n in zip(scored, lengths, strict=True))
        for request in scheduler.plan(now_s, room(random.randrange(4))).started:
            request.output_tokens += 5
            scheduler.produced(request, 5)
        scheduler.step_done()
        if random.random() < 0.3:
            scheduler.select_victim(now_s)
        for request in requests:
            if request.phase in (Phase.WAITING, Phase.RUNNING) and random.random() < 0.2:
                scheduler.end(request, finished=request.phase is Phase.RUNNING)
    # The bound is measured before each plan.
    scheduler.plan(NOW_S, room(0))
    return scheduler


@settings(max_examples=200, deadline=None)
@given(scheduler=schedulers(), most=st.integers(1, 60))
def test_it_shows_the_order_in_which_requests_start(scheduler: Scheduler, most: int) -> None:
    shown = scheduler.next_requests(NOW_S, most)
    scheduler.check_integrity()
    assert [r.id for r in scheduler.next_requests(NOW_S, most)] == [r.id for r in shown], (
        "looking changes nothing"
    )
    started = scheduler.plan(NOW_S, room(most)).started
    assert [r.id for r in shown] == [r.id for r in started]


@given(st.lists(st.tuples(st.integers(0, 20))))
def test_a_heap_in_order_is_sorted(items: list[tuple[int]]) -> None:
    heap = sorted(items)
    assert list(heap_in_order(heap)) == heap


class Counted(float):
    """A key that counts how often one is compared."""

    comparisons = 0

    def __lt__(self, other: float) -> bool:
        Counted.comparisons += 1
        return float(self) < float(other)


class ByCounted(Policy):
    name = "by_counted"

    def key(self, request: Request) -> float:
        return Counted(request.expected_tokens)


@pytest.mark.parametrize("tenants", [1, 5_000])
def test_the_first_of_a_long_queue_cost_as_many_steps_as_are_shown(tenants: int) -> None:
    queue = RankedQueue(ByCounted())
    for n in range(50_000):
        length, tenant = float(n * 7919 % 50_000), f"t{n % tenants}"
        queue.add(make_request(str(n), expected_tokens=length, tenant=tenant, sequence=n))
    Counted.comparisons = 0
    shown = list(islice(queue.preview(0.0, 0), 30))
    assert len({request.id for request in shown}) == 30
    assert Counted.comparisons < 1_000


def test_running_requests_are_shown_in_the_order_of_their_starts() -> None:
    scheduler = Scheduler(make_policy("fcfs"))
    for n in range(5):
        scheduler.submit(make_request(str(n), arrival_s=float(n)))
    scheduler.plan(10.0, room(4))
    assert [r.id for r in scheduler.running_requests(3)] == ["0", "1", "2"]


def test_who_is_due_may_be_hidden_behind_one_evicted_at_the_same_time() -> None:
    starvation = StarvationSettings(threshold_steps=2)
    scheduler = Scheduler(make_policy("ranking"), SchedulerSettings(starvation=starvation))
    for name, score in (("a", 9.0), ("b", 8.0), ("c", 1.0), ("d", 2.0)):
        scheduler.submit(make_request(name, score=score))
    scheduler.plan(0.0, room(2))
    scheduler.step_done()
    victim = scheduler.select_victim(0.0)
    assert victim is not None
    assert victim.id == "b"
    scheduler.step_done()
    assert [r.id for r in scheduler.next_requests(0.0, 3)] == ["b", "c", "d"]
    assert [r.id for r in scheduler.plan(0.0, room(3)).started] == ["b", "c", "d"]


def test_who_was_put_back_is_not_charged_again() -> None:
    # Found by the machine of the whole scheduler: the preview charged for the second start too.
    scheduler = Scheduler(make_policy("fcfs"))
    requests = [make_request(name, tenant=name[0]) for name in ("a1", "a2", "b1", "b2")]
    scheduler.submit(requests[0])
    scheduler.plan(0.0, room(1))
    scheduler.put_back(requests[0])
    for request in requests[1:]:
        scheduler.submit(request)
    shown = [r.id for r in scheduler.next_requests(0.0, 4)]
    assert shown == [r.id for r in scheduler.plan(0.0, room(4)).started] == ["a1", "a2", "b1", "b2"]
