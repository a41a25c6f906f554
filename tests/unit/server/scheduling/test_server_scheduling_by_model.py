"""Schedulers of several models that look like one."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from rankserve.server.scheduling.budget import EngineRoom
from rankserve.server.scheduling.by_model import Schedulers
from rankserve.server.scheduling.policies import Fcfs, Ranking, make_policy
from rankserve.server.scheduling.request import Phase, Request
from rankserve.server.scheduling.scheduler import Scheduler


def request(name: str, model: str = "", **fields: float) -> Request:
    return Request(id=name, arrival_s=0.0, prompt_tokens=3, max_tokens=5, model=model, **fields)  # type: ignore[arg-type]


def room(sequences: int, model: str = "") -> EngineRoom:
    return EngineRoom(sequences, batched_tokens=10**6, kv_blocks=10**6, model=model)


def started(schedulers: Schedulers, sequences: int, model: str = "") -> list[str]:
    return [r.id for r in schedulers.plan(0.0, room(sequences, model)).started]


@pytest.fixture
def schedulers() -> Schedulers:
    return Schedulers(make_policy("ranking"))


def test_each_model_has_its_own_order_and_its_own_room(schedulers: Schedulers) -> None:
    for name, model, score in (("a", "", 1), ("b", "x", 2), ("c", "", 3), ("d", "x", 4)):
        schedulers.submit(request(name, model, score=score))
    assert (schedulers.waiting, schedulers.waiting_for("x"), schedulers.waiting_for("y")) == (4, 2, 0)
    assert started(schedulers, 8, "x") == ["d", "b"]
    assert started(schedulers, 8, "y") == []
    assert started(schedulers, 1) == ["c"]
    assert (schedulers.waiting, schedulers.running) == (1, 3)
    schedulers.check_integrity()


def test_a_deadline_passes_whatever_the_model(schedulers: Schedulers) -> None:
    schedulers.submit(request("late", "x", deadline_s=2.0))
    schedulers.submit(request("later", deadline_s=3.0))
    assert schedulers.next_deadline_s() == 2.0
    assert [r.id for r in schedulers.expired(5.0)] == ["late", "later"] or [
        r.id for r in schedulers.expired(5.0)
    ] == ["later", "late"]


def test_the_last_in_line_is_of_the_worst_band_of_all(schedulers: Schedulers) -> None:
    assert schedulers.last_waiting() is None
    schedulers.submit(request("best", "x", priority=-1))
    schedulers.submit(request("worst", "x", priority=7))
    schedulers.submit(request("middle", priority=3))
    last = schedulers.last_waiting()
    assert last is not None
    assert last.id == "worst"


def test_another_policy_orders_all_models_those_to_come_too(schedulers: Schedulers) -> None:
    for name, score in (("a", 1), ("b", 2)):
        schedulers.submit(request(name, "x", score=score))
    schedulers.set_policy(Fcfs(), 0.0)
    schedulers.submit(request("c", "y", score=1))
    schedulers.submit(request("d", "y", score=2))
    assert started(schedulers, 2, "x") == ["a", "b"]
    assert started(schedulers, 2, "y") == ["c", "d"]


def test_a_policy_that_cannot_order_one_model_orders_none(schedulers: Schedulers) -> None:
    class Broken(Fcfs):
        def key(self, request: Request) -> float:
            return float("nan") if request.model == "y" else 0.0

    schedulers.submit(request("a", score=1))
    schedulers.submit(request("b", score=2))
    schedulers.submit(request("c", "y"))
    with pytest.raises(ValueError, match="not a number"):
        schedulers.set_policy(Broken(), 0.0)
    assert isinstance(schedulers.policy, Ranking)
    assert started(schedulers, 2) == ["b", "a"]


def test_scores_reach_each_model(schedulers: Schedulers) -> None:
    requests = [request("a"), request("b"), request("c", "x"), request("d", "x")]
    for each in requests:
        schedulers.submit(each)
    schedulers.rescore((each, float(place), 1.0, 1.0) for place, each in enumerate(requests))
    assert started(schedulers, 2) == ["b", "a"]
    assert started(schedulers, 2, "x") == ["d", "c"]


def test_what_runs_and_comes_next_is_shown_of_all_models(schedulers: Schedulers) -> None:
    for name, model in (("a", ""), ("b", ""), ("c", "x"), ("d", "x")):
        schedulers.submit(request(name, model))
    started(schedulers, 1)
    started(schedulers, 1, "x")
    assert [r.id for r in schedulers.running_requests(5)] == ["a", "c"]
    assert [r.id for r in schedulers.next_requests(0.0, 1)] == ["b"]
    assert sorted(r.id for r in schedulers.waiting_requests()) == ["b", "d"]


def test_what_an_engine_lost_goes_back_to_its_place_and_is_no_preemption(schedulers: Schedulers) -> None:
    for name, score in (("a", 1), ("b", 3), ("c", 2)):
        schedulers.submit(request(name, score=score))
    (first,) = schedulers.plan(0.0, room(1)).started
    schedulers.put_back(first)
    assert (first.phase, first.restarts, first.preemptions) == (Phase.WAITING, 1, 0)
    assert schedulers.preemptions_total == 0
    assert started(schedulers, 3) == ["b", "c", "a"]
    schedulers.check_integrity()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-5, 5)), max_size=30))
def test_one_model_is_ordered_as_by_a_scheduler_alone(given_requests: list[tuple[int, float]]) -> None:
    alone, together = Scheduler(make_policy("ranking")), Schedulers(make_policy("ranking"))
    for number, (priority, score) in enumerate(given_requests):
        for scheduler in (alone, together):
            scheduler.submit(request(f"r{number}", priority=priority, score=score))
    expected = [r.id for r in alone.plan(0.0, room(30)).started]
    assert started(together, 30) == expected
