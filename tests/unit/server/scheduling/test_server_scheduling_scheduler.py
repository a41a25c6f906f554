"""The scheduler's promises, through the real scheduler and the real simulated batch."""

import math

import pytest
from support.requests import make_profile, make_request

from rankserve.server.engines.simulated.batch import SimulatedBatch
from rankserve.server.scheduling.budget import EngineRoom
from rankserve.server.scheduling.policies import BUILT_IN, AgedRanking, Ranking, make_policy
from rankserve.server.scheduling.preemption import Preemption
from rankserve.server.scheduling.request import Phase, Request
from rankserve.server.scheduling.reservation import KvReservation
from rankserve.server.scheduling.scheduler import Scheduler, SchedulerSettings
from rankserve.server.scheduling.starvation import StarvationSettings
from rankserve.server.simulation.virtual_server import VirtualServer

ONE_SLOT = EngineRoom(sequences=1, batched_tokens=2048, kv_blocks=1000)


def start_order(scheduler: Scheduler, now_s: float = 0.0) -> list[str]:
    order = []
    while admitted := scheduler.plan(now_s, ONE_SLOT).started:
        order.append(admitted[0].id)
        scheduler.end(admitted[0])
    return order


@pytest.mark.parametrize(
    ("policy", "expected_s_per_token"),
    [("fcfs", (10 / 10 + 12 / 2 + 13 / 1) / 3), ("sjf", (1 / 1 + 3 / 2 + 13 / 10) / 3)],
)
def test_worked_example_of_the_paper(policy: str, expected_s_per_token: float) -> None:
    """Lengths 10, 2, 1, all there before the first plan, one slot, 1 s/token: 6.67 and 1.27 s/token."""
    lengths = {"first": 10, "second": 2, "third": 1}
    server = VirtualServer(Scheduler(make_policy(policy)), SimulatedBatch(make_profile(max_sequences=1)))
    server.submit(make_request(name, replay_output_tokens=length) for name, length in lengths.items())
    server.run()
    normalised = [server.end_s(name) / length for name, length in lengths.items()]
    assert math.isclose(sum(normalised) / 3, expected_s_per_token)
    assert round(expected_s_per_token, 2) in (6.67, 1.27)


def test_ranking_of_perfect_scores_orders_as_the_oracle_does() -> None:
    lengths = [10, 2, 1, 50, 7, 7, 3]
    scheduler = Scheduler(make_policy("ranking"))
    for index, length in enumerate(lengths):
        scheduler.submit(make_request(f"r{index}", score=-float(length), arrival_s=float(index)))
    assert start_order(scheduler) == ["r2", "r1", "r6", "r4", "r5", "r0", "r3"]


def test_equal_scores_start_in_order_of_arrival_whatever_the_order_of_queueing() -> None:
    scheduler = Scheduler(make_policy("ranking"))
    for arrival_s in (3.0, 1.0, 2.0):
        scheduler.submit(make_request(f"at{arrival_s:.0f}", arrival_s=arrival_s))
    assert start_order(scheduler) == ["at1", "at2", "at3"]


def test_a_lower_priority_number_goes_first_whatever_the_score() -> None:
    scheduler = Scheduler(make_policy("ranking"))
    scheduler.submit(make_request("bulk", priority=5, score=100.0))
    scheduler.submit(make_request("normal", priority=0, score=-100.0))
    scheduler.submit(make_request("urgent", priority=-1, score=-200.0))
    assert start_order(scheduler) == ["urgent", "normal", "bulk"]


def test_ageing_lets_an_old_long_request_pass_a_new_short_one() -> None:
    old_long, new_short = {"expected_tokens": 500.0}, {"expected_tokens": 20.0}
    for rate, expected in ((0.0, ["new", "old"]), (4.0, ["new", "old"]), (5.0, ["old", "new"])):
        scheduler = Scheduler(AgedRanking(ageing_tokens_per_s=rate))
        scheduler.submit(make_request("old", arrival_s=0.0, **old_long))
        scheduler.submit(make_request("new", arrival_s=100.0, **new_short))
        assert start_order(scheduler, 100.0) == expected


def test_nobody_overtakes_the_request_whose_turn_it_is() -> None:
    scheduler = Scheduler(make_policy("fcfs"))
    scheduler.submit(make_request("large", arrival_s=0.0, prompt_tokens=1600))
    scheduler.submit(make_request("small", arrival_s=1.0, prompt_tokens=16))
    room_for_small_only = EngineRoom(sequences=4, batched_tokens=2048, kv_blocks=50)
    assert scheduler.plan(2.0, room_for_small_only).started == []


def test_max_wait_promotes_by_arrival_within_the_band_only() -> None:
    scheduler = Scheduler(Ranking(), SchedulerSettings(StarvationSettings(max_wait_s=10.0)))
    scheduler.submit(make_request("old", arrival_s=0.0, score=-9.0))
    scheduler.submit(make_request("older-bulk", arrival_s=-5.0, score=-9.0, priority=1))
    scheduler.submit(make_request("fresh", arrival_s=9.0, score=9.0))
    assert start_order(scheduler, now_s=10.0) == ["old", "fresh", "older-bulk"]
    # "older-bulk" is due as well, but has nobody to go before.
    assert scheduler.promotions_total == 1


@pytest.mark.parametrize(("now_s", "first"), [(9.999, "better"), (10.0, "old")])
def test_a_request_is_due_exactly_when_its_bound_has_passed(now_s: float, first: str) -> None:
    scheduler = Scheduler(Ranking(), SchedulerSettings(StarvationSettings(max_wait_s=10.0)))
    scheduler.submit(make_request("old", arrival_s=0.0, score=0.0))
    scheduler.submit(make_request("better", arrival_s=5.0, score=1.0))
    assert start_order(scheduler, now_s)[0] == first


def test_threshold_counts_steps_without_being_scheduled() -> None:
    """Fu et al. 2024, algorithm 1: unscheduled for `threshold` steps -> promoted."""
    settings = StarvationSettings(threshold_steps=3, quantum_steps=2)
    scheduler = Scheduler(Ranking(), SchedulerSettings(settings))
    server = VirtualServer(scheduler, SimulatedBatch(make_profile(max_sequences=1)))
    server.submit([make_request("starving", score=-1.0, replay_output_tokens=1)])
    for index in range(5):
        server.submit([make_request(f"short{index}", score=1.0, replay_output_tokens=1)])
    server.run()
    assert server.started == ["short0", "short1", "short2", "starving", "short3", "short4"]


def test_quantum_protects_a_promoted_request_from_eviction_and_runs_out() -> None:
    scheduler = Scheduler(Ranking(), SchedulerSettings(StarvationSettings(max_wait_s=1.0, quantum_steps=2)))
    scheduler.submit(make_request("promoted", score=-9.0))
    scheduler.plan(1.0, ONE_SLOT)
    scheduler.submit(make_request("better", score=9.0, arrival_s=1.0))
    scheduler.submit(make_request("best", score=10.0, arrival_s=1.0))
    scheduler.plan(1.0, EngineRoom(sequences=2, batched_tokens=2048, kv_blocks=100))
    scheduler.step_done()
    first = scheduler.select_victim(1.0)
    assert first is not None
    assert first.id == "better"
    scheduler.step_done()
    second = scheduler.select_victim(1.0)
    assert second is not None
    assert second.id == "promoted"


def test_the_last_running_request_is_never_a_victim() -> None:
    scheduler = Scheduler(make_policy("fcfs"))
    scheduler.submit(make_request("only"))
    scheduler.plan(0.0, ONE_SLOT)
    assert scheduler.select_victim(0.0) is None


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.RUNNING])
def test_deadlines_find_waiting_and_running_requests(phase: Phase) -> None:
    scheduler = Scheduler(make_policy("fcfs"))
    request = make_request("late", deadline_s=5.0)
    scheduler.submit(request)
    scheduler.submit(make_request("patient"))
    if phase is Phase.RUNNING:
        scheduler.plan(0.0, ONE_SLOT)
    assert request.phase is phase
    assert scheduler.next_deadline_s() == 5.0
    assert scheduler.expired(4.999) == []
    assert scheduler.expired(5.0) == [request]
    scheduler.end(request)
    assert scheduler.next_deadline_s() is None
    assert (scheduler.waiting, scheduler.running) == (1, 0)
    scheduler.check_integrity()


def test_rescoring_reorders_but_keeps_promotions() -> None:
    scheduler = Scheduler(Ranking(), SchedulerSettings(StarvationSettings(max_wait_s=10.0)))
    due, first, second = (
        make_request("due", score=-5.0),
        make_request("a", score=2.0, arrival_s=9.0),
        make_request("b", score=1.0, arrival_s=9.0),
    )
    for request in (due, first, second):
        scheduler.submit(request)
    scheduler.rescore([(due, -9.0, 1.0, 2.0), (first, 1.0, 1.0, 2.0), (second, 2.0, 1.0, 2.0)])
    assert [scheduler.place(r, 10.0) for r in (second, first, due)] == [0, 1, 2], "places go by key"
    scheduler.check_integrity()
    assert start_order(scheduler, 10.0) == ["due", "b", "a"]


def test_a_score_that_is_not_a_number_never_enters_the_queue() -> None:
    scheduler = Scheduler(make_policy("ranking"))
    with pytest.raises(ValueError, match="not a number"):
        scheduler.submit(make_request("nan", score=math.nan))
    assert scheduler.waiting == 0
    scheduler.check_integrity()


def test_submitting_twice_is_refused() -> None:
    scheduler = Scheduler(make_policy("fcfs"))
    request = make_request("once")
    scheduler.submit(request)
    with pytest.raises(ValueError, match="submitted before"):
        scheduler.submit(request)


class _Sealed(Request):
    """A request whose recorded answer nobody may read."""

    @property
    def replay_output_tokens(self) -> int:
        raise AssertionError("read the recorded answer")

    @replay_output_tokens.setter
    def replay_output_tokens(self, value: int | None) -> None: ...


def _exercise(scheduler: Scheduler) -> None:
    """Every decision there is: order, admission, eviction for another, victims, scores, places."""
    room = EngineRoom(sequences=2, batched_tokens=2048, kv_blocks=1000)
    full = EngineRoom(sequences=0, batched_tokens=2048, kv_blocks=1000)
    requests: list[Request] = [
        _Sealed(
            id=f"r{i}",
            arrival_s=float(i),
            prompt_tokens=16,
            max_tokens=900,
            score=-float(i),
            expected_tokens=500.0 - 50 * i,
            expected_tokens_p90=700.0,
            tenant="ab"[i % 2],
            deadline_s=100.0 - i,
        )
        for i in range(6)
    ]
    for request in requests[:4]:
        scheduler.submit(request)
    started = scheduler.plan(4.0, room).started
    for request in started:
        request.kv_tokens, request.decoding, request.output_tokens = 17, True, 40
        scheduler.produced(request, 40)
    for request in requests[4:]:
        scheduler.submit(request)
    scheduler.plan(5.0, full)
    scheduler.select_victim(5.0)
    scheduler.rescore([(request, 1.0, 10.0, 20.0) for request in requests])
    for request in requests:
        if request.phase is Phase.WAITING:
            scheduler.place(request, 6.0)
    scheduler.step_done()
    for _ in range(20):
        scheduler.plan(7.0, room)
    assert scheduler.waiting == 0


@pytest.mark.parametrize("name", BUILT_IN)
def test_only_oracles_read_the_recorded_answer(name: str) -> None:
    settings = SchedulerSettings(
        starvation=StarvationSettings(threshold_steps=1, max_wait_s=6.5),
        preemption=Preemption(enabled=True, margin=0.0),
        kv_reservation=KvReservation.PREDICTED,
    )
    if name in ("sjf", "srtf"):
        with pytest.raises(AssertionError, match="recorded answer"):
            _exercise(Scheduler(make_policy(name), settings))
    else:
        _exercise(Scheduler(make_policy(name), settings))


@pytest.mark.parametrize(
    "bad", [{"threshold_steps": -1}, {"quantum_steps": 0}, {"max_wait_s": 0.0}, {"max_wait_s": math.nan}]
)
def test_impossible_bounds_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="got"):
        StarvationSettings(**bad)  # type: ignore[arg-type]


def test_unknown_policy_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="aged_ranking, bounded_ranking, classification, cost_aware"):
        make_policy("lifo")


@pytest.mark.parametrize("policy", ["ranking", "aged_ranking"])
def test_requests_without_a_score_wait_behind_the_others_in_order_of_arrival(policy: str) -> None:
    scheduler = Scheduler(make_policy(policy))
    scheduler.submit(make_request("later", arrival_s=1.0))
    scheduler.submit(make_request("earlier", arrival_s=0.0))
    scheduler.submit(make_request("scored", arrival_s=2.0, score=-1e9, expected_tokens=1e9))
    assert start_order(scheduler, 3.0) == ["scored", "earlier", "later"]


def test_requests_due_at_the_same_plan_start_by_arrival() -> None:
    scheduler = Scheduler(Ranking(), SchedulerSettings(StarvationSettings(threshold_steps=1)))
    scheduler.submit(make_request("early", arrival_s=1.0, score=0.0))
    scheduler.submit(make_request("late", arrival_s=2.0, score=1.0))
    scheduler.step_done()
    assert start_order(scheduler, 3.0) == ["early", "late"]
