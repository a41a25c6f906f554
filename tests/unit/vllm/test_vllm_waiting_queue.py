"""vLLM's waiting queue in our order, driven as vLLM's scheduler does, with stubs for its requests."""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from rankserve.server.scheduling.fair_share import FairShare
from rankserve.server.scheduling.policies import make_policy
from rankserve.server.scheduling.starvation import StarvationSettings
from rankserve.vllm.waiting_queue import WaitingQueue


@dataclass(eq=False)
class Stub:
    """What is read of vLLM's requests."""

    request_id: str
    score: float | None = None
    priority: int = 0
    num_prompt_tokens: int = 10
    max_tokens: int = 100
    num_output_tokens: int = 0
    status: str = "waiting"
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def sampling_params(self) -> Any:
        marks = {} if self.score is None else {"rankserve_score": self.score}
        return SimpleNamespace(extra_args={**marks, **self.extra} or None)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def queue_of(
    clock: Clock,
    policy: str = "ranking",
    starvation: StarvationSettings | None = None,
    fair_share: FairShare | None = None,
) -> WaitingQueue[Stub]:
    return WaitingQueue(
        make_policy(policy), lambda request: request.status == "running", clock, starvation, fair_share
    )


def add(queue: WaitingQueue[Stub], requests: Iterable[Stub]) -> None:
    for request in requests:
        queue.add_request(request)


def start(queue: WaitingQueue[Stub], most: int, skipped: Iterable[str] = ()) -> list[str]:
    """A step as vLLM plans it: starts so many, sets aside those named."""
    queue.begin_step()
    started: list[str] = []
    aside: list[Stub] = []
    while queue and len(started) < most:
        request = queue.peek_request()
        assert queue.pop_request() is request
        if request.request_id in skipped:
            aside.insert(0, request)
        else:
            request.status = "running"
            started.append(request.request_id)
    queue.prepend_requests(aside)
    queue.end_step()
    queue.check_integrity()
    return started


def names(queue: WaitingQueue[Stub]) -> list[str]:
    return [request.request_id for request in queue]


def test_requests_start_in_the_order_of_their_scores(clock: Clock) -> None:
    queue = queue_of(clock)
    scores = random.Random(1).sample(range(1000), 24)
    add(queue, [Stub(f"r{score}", float(score)) for score in scores])
    expected = [f"r{score}" for score in sorted(scores, reverse=True)]
    assert len(queue) == 24
    assert names(queue) == expected
    assert [name for _ in range(12) for name in start(queue, 2)] == expected
    assert not queue
    with pytest.raises(IndexError):
        queue.peek_request()
    with pytest.raises(IndexError):
        queue.pop_request()


def test_without_any_score_it_is_first_come_first_served(clock: Clock) -> None:
    queue = queue_of(clock)
    add(queue, [Stub(name) for name in "cab"])
    assert start(queue, 3) == ["c", "a", "b"]


def test_a_request_without_a_score_gets_the_one_in_the_middle(clock: Clock) -> None:
    queue = queue_of(clock)
    add(queue, [Stub("best", 9.0), Stub("middle", 5.0), Stub("worst", 1.0), Stub("none")])
    assert start(queue, 4) == ["best", "middle", "none", "worst"]


@pytest.mark.parametrize("score", [math.nan, math.inf, "9", True, [9.0], 10**400])
def test_what_is_no_score_counts_as_none(clock: Clock, score: Any) -> None:
    queue = queue_of(clock)
    add(queue, [Stub("first", 2.0), Stub("odd", extra={"rankserve_score": score}), Stub("last", 1.0)])
    assert len(start(queue, 3)) == 3


def test_an_empty_prompt_of_unknown_length_has_a_place(clock: Clock) -> None:
    queue = queue_of(clock, "cost_aware")
    add(
        queue,
        [Stub("empty", num_prompt_tokens=0), Stub("known", 1.0, extra={"rankserve_expected_tokens": 5})],
    )
    assert start(queue, 2) == ["known", "empty"]


def test_requests_for_pooling_have_no_sampling_parameters(clock: Clock) -> None:
    class Pooling(Stub):
        @property
        def sampling_params(self) -> None:
            return None

    queue = queue_of(clock)
    queue.add_request(Pooling("p"))
    assert start(queue, 1) == ["p"]


def test_lower_priorities_go_first_and_are_bounded(clock: Clock) -> None:
    queue = queue_of(clock)
    add(queue, [Stub("a", 9.0), Stub("b", 1.0, priority=-1), Stub("c", 5.0, priority=1)])
    add(queue, [Stub(f"p{n}", priority=-(10**9) - n) for n in range(3)])
    assert start(queue, 6) == ["p0", "p1", "p2", "b", "a", "c"]


def test_what_is_set_aside_comes_back_to_its_place(clock: Clock) -> None:
    queue = queue_of(clock)
    add(queue, [Stub(name, score) for name, score in (("a", 4.0), ("b", 3.0), ("c", 2.0), ("d", 1.0))])
    assert start(queue, 1, skipped=("a", "b")) == ["c"]
    assert names(queue) == ["a", "b", "d"]
    assert start(queue, 3) == ["a", "b", "d"]


def test_who_is_set_aside_again_and_again_keeps_its_time_and_costs_no_memory(clock: Clock) -> None:
    queue = queue_of(clock, starvation=StarvationSettings(max_wait_s=10.0))
    add(queue, [Stub("blocked", 9.0), Stub("old", 1.0)])
    for _ in range(2000):
        start(queue, 0)
        assert start(queue, 0, skipped=()) == []
        queue.begin_step()
        request = queue.pop_request()
        queue.prepend_request(request)
        queue.end_step()
    waits = queue._queue._bands[0].waits
    assert waits is not None
    assert len(waits) < 200
    clock.now_s += 11.0
    add(queue, [Stub("new", 99.0)])
    assert start(queue, 3) == ["blocked", "old", "new"]


def test_a_wait_beyond_the_bound_goes_first(clock: Clock) -> None:
    queue = queue_of(clock, starvation=StarvationSettings(max_wait_s=10.0))
    add(queue, [Stub("long", -9.0)])
    clock.now_s += 9.0
    add(queue, [Stub("short", 9.0)])
    assert names(queue) == ["short", "long"]
    clock.now_s += 1.0
    add(queue, [Stub("shorter", 10.0)])
    assert start(queue, 3) == ["long", "shorter", "short"]


def test_a_bound_in_steps_counts_those_of_vllm(clock: Clock) -> None:
    queue = queue_of(clock, starvation=StarvationSettings(threshold_steps=3))
    add(queue, [Stub("long", -9.0)])
    for _ in range(2):
        start(queue, 0)
    add(queue, [Stub("short", 9.0)])
    assert start(queue, 1) == ["long"]


def test_an_evicted_request_waits_again_by_its_score(clock: Clock) -> None:
    queue = queue_of(clock)
    evicted = Stub("evicted", 5.0)
    add(queue, [evicted])
    assert start(queue, 1) == ["evicted"]
    queue.produced("evicted", 7)
    evicted.status, evicted.num_output_tokens = "preempted", 7
    add(queue, [Stub("better", 6.0), Stub("worse", 4.0)])
    queue.prepend_request(evicted)
    assert start(queue, 3) == ["better", "evicted", "worse"]
    queue.ended("evicted", finished=True)


def test_aborted_requests_leave_the_queue(clock: Clock) -> None:
    queue = queue_of(clock, "bounded_ranking")
    requests = {name: Stub(name, n) for n, name in enumerate("abcd")}
    add(queue, requests.values())
    # vLLM asks every queue it has, and tells of the end afterwards.
    queue.remove_requests([requests["b"], requests["c"], Stub("elsewhere")])
    for name in ("b", "c"):
        queue.ended(name, finished=False)
    queue.check_integrity()
    assert sorted(names(queue)) == ["a", "d"]
    with pytest.raises(ValueError, match="does not wait"):
        queue.remove_request(requests["b"])
    queue.remove_request(requests["a"])
    assert start(queue, 2) == ["d"]


def test_the_end_of_a_waiting_request_may_come_without_its_removal(clock: Clock) -> None:
    queue = queue_of(clock)
    add(queue, [Stub("a", 1.0), Stub("b", 2.0)])
    queue.ended("b", finished=False)
    queue.ended("never", finished=True)
    assert start(queue, 2) == ["a"]


def test_tenants_take_turns(clock: Clock) -> None:
    def of(tenant: str, n: int, score: float) -> Stub:
        return Stub(f"{tenant}{n}", score, extra={"rankserve_tenant": tenant})

    requests = [*(of("a", n, 9.0) for n in range(4)), *(of("b", n, 1.0) for n in range(2))]
    queue = queue_of(clock)
    add(queue, requests)
    assert [name[0] for name in start(queue, 4)] == ["a", "b", "a", "b"]
    queue = queue_of(clock, fair_share=FairShare(enabled=False))
    add(queue, [of("b", 0, 1.0), of("a", 0, 9.0), of("a", 1, 9.0)])
    assert start(queue, 3) == ["a0", "a1", "b0"]


def test_who_was_set_aside_is_not_charged(clock: Clock) -> None:
    queue = queue_of(clock)
    add(queue, [Stub("a0", 9.0, extra={"rankserve_tenant": "a"})])
    add(queue, [Stub("b0", 1.0, extra={"rankserve_tenant": "b"})])
    for _ in range(5):
        assert start(queue, 0, skipped=("a0",)) == []
        queue.begin_step()
        queue.prepend_request(queue.pop_request())
        queue.end_step()
    assert start(queue, 1) == ["a0"]


def test_the_default_policy_learns_from_what_vllm_tells(clock: Clock) -> None:
    """With a bound that follows FCFS: all that starts is accounted for, and nothing is left at the end."""
    draw = random.Random(3)
    queue = queue_of(clock, "bounded_ranking")
    running: list[Stub] = []
    order: list[str] = []
    for n in range(300):
        clock.now_s += draw.random() * 0.2
        length = draw.choice((5, 50, 200))
        extra = {"rankserve_expected_tokens": float(length)}
        queue.add_request(Stub(f"r{n}", -float(length), max_tokens=length, extra=extra))
        for _ in range(3):
            before = len(order)
            waiting = {request.request_id: request for request in queue}
            order += start(queue, max(0, 4 - len(running)))
            running += [waiting[name] for name in order[before:]]
            for request in list(running):
                request.num_output_tokens += 5
                queue.produced(request.request_id, 5)
                if request.num_output_tokens >= request.max_tokens:
                    running.remove(request)
                    queue.ended(request.request_id, finished=True)
    while queue:
        order += start(queue, 4)
    assert sorted(order) == sorted(f"r{n}" for n in range(300))
    assert order != [f"r{n}" for n in range(300)]


def test_a_policy_by_length_takes_the_length_in_the_middle_where_there_is_none(clock: Clock) -> None:
    queue = queue_of(clock, "aged_ranking")
    lengths = {"short": 10.0, "middle": 100.0, "long": 1000.0}
    add(queue, [Stub(n, 1.0, extra={"rankserve_expected_tokens": x}) for n, x in lengths.items()])
    add(queue, [Stub("unknown", 50.0)])
    assert start(queue, 4) == ["short", "middle", "unknown", "long"]


def test_what_ended_unnoticed_is_forgotten(clock: Clock) -> None:
    queue = queue_of(clock)
    for n in range(1100):
        queue.add_request(Stub(f"r{n}", float(n)))
    queue.forget_all_but({"r5"})
    assert names(queue) == ["r5"]
    queue.forget_all_but(set())
    assert names(queue) == ["r5"], "a few are left alone"


def test_the_next_part_of_a_prompt_waits_like_a_new_request(clock: Clock) -> None:
    queue = queue_of(clock)
    session = Stub("session", 5.0)
    queue.add_request(session)
    queue.add_request(session)
    assert len(queue) == 1
    assert start(queue, 2) == ["session"]
    session.status = "waiting"
    queue.add_request(session)
    assert start(queue, 2) == ["session"]
