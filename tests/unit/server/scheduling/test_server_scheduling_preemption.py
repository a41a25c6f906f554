"""Evictions for others: who yields to whom, when it pays, and what it costs in time."""

import pytest
from support.requests import make_profile, make_request

from rankserve.server.engines.simulated.batch import SimulatedBatch
from rankserve.server.scheduling.budget import EngineRoom
from rankserve.server.scheduling.policies import Policy, make_policy
from rankserve.server.scheduling.preemption import Preemption
from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.scheduler import Scheduler, SchedulerSettings
from rankserve.server.scheduling.starvation import StarvationSettings
from rankserve.server.simulation.virtual_server import VirtualServer

FULL = EngineRoom(sequences=0, batched_tokens=2048, kv_blocks=100)
FREE = EngineRoom(sequences=1, batched_tokens=2048, kv_blocks=100)


def running(policy: Policy, *requests: Request, **settings: object) -> Scheduler:
    """A scheduler on whose engine these run, each having decoded a token since."""
    scheduler = Scheduler(policy, SchedulerSettings(**settings))  # type: ignore[arg-type]
    for request in requests:
        scheduler.submit(request)
        assert scheduler.plan(request.arrival_s, FREE).started == [request]
        request.kv_tokens, request.decoding = request.prompt_tokens, True
        request.output_tokens += 1
    return scheduler


def evicted_for(scheduler: Scheduler, head: Request, room: EngineRoom = FULL) -> list[str]:
    scheduler.submit(head)
    plan = scheduler.plan(head.arrival_s, room)
    assert plan.started == ([head] if plan.evicted else [])
    scheduler.check_integrity()
    return [request.id for request in plan.evicted]


@pytest.mark.parametrize(("length", "evicted"), [(62, ["long"]), (63, [])])
def test_an_eviction_must_gain_more_than_it_costs(length: int, evicted: list[str]) -> None:
    """The victim has 99 tokens left. Bringing its 17 tokens back costs two sequences a step each: 34 steps,
    at a margin of one, and 99 - 63 = 36 would exceed that; at 1.07 the margin is 36.4.
    """
    preemption = Preemption(enabled=True, margin=1.07, restart_steps_per_token=1.0)
    long = make_request("long", replay_output_tokens=100)
    other = make_request("other", replay_output_tokens=30)
    scheduler = running(make_policy("srtf"), long, other, preemption=preemption)
    assert evicted_for(scheduler, make_request("head", replay_output_tokens=length)) == evicted


def test_without_preemption_nobody_yields_but_to_need() -> None:
    long = make_request("long", replay_output_tokens=100)
    scheduler = running(make_policy("srtf"), long)
    assert evicted_for(scheduler, make_request("head", replay_output_tokens=1)) == []


@pytest.mark.parametrize("policy", ["fcfs", "aged_ranking", "edf", "hrrn"])
def test_policies_without_an_idea_of_what_is_left_evict_only_worse_bands(policy: str) -> None:
    free = Preemption(enabled=True, margin=0.0)
    late = make_request("late", arrival_s=5.0, expected_tokens=900.0, deadline_s=99.0)
    scheduler = running(make_policy(policy), late, preemption=free)
    better = make_request("head", arrival_s=5.0, expected_tokens=1.0, deadline_s=9.0)
    assert evicted_for(scheduler, better) == []
    assert evicted_for(scheduler, make_request("urgent", arrival_s=5.0, priority=-1)) == ["late"]


def test_a_better_band_is_never_evicted_for_a_worse_one() -> None:
    free = Preemption(enabled=True, margin=0.0)
    long = make_request("long", priority=-1, replay_output_tokens=100)
    scheduler = running(make_policy("srtf"), long, preemption=free)
    assert evicted_for(scheduler, make_request("head", replay_output_tokens=1)) == []


def test_who_was_promoted_is_protected_for_its_quantum() -> None:
    free = Preemption(enabled=True, margin=0.0)
    bounds = StarvationSettings(max_wait_s=1.0, quantum_steps=2)
    scheduler = Scheduler(make_policy("srtf"), SchedulerSettings(starvation=bounds, preemption=free))
    starved = make_request("starved", replay_output_tokens=100)
    scheduler.submit(starved)
    assert scheduler.plan(1.0, FREE).started == [starved]
    starved.kv_tokens, starved.decoding = 16, True
    assert evicted_for(scheduler, make_request("short", arrival_s=1.0, replay_output_tokens=1)) == []
    scheduler.step_done()
    assert scheduler.plan(1.0, FULL).evicted == []
    scheduler.step_done()
    assert scheduler.plan(1.0, FULL).evicted == [starved]


def test_a_due_request_evicts_only_who_overtook_it() -> None:
    free = Preemption(enabled=True, margin=1e9)
    bounds = StarvationSettings(max_wait_s=4.0)
    for arrival_s, evicted in ((0.5, []), (2.0, ["runs"])):
        runs = make_request("runs", arrival_s=arrival_s, score=1.0)
        scheduler = running(make_policy("ranking"), runs, starvation=bounds, preemption=free)
        due = make_request("due", arrival_s=1.0, score=-1.0)
        scheduler.submit(due)
        assert [r.id for r in scheduler.plan(4.9, FULL).evicted] == []
        assert [r.id for r in scheduler.plan(5.0, FULL).evicted] == evicted


def test_nobody_is_evicted_in_vain() -> None:
    """The victim's blocks would not suffice for the head."""
    free = Preemption(enabled=True, margin=0.0)
    long = make_request("long", replay_output_tokens=100)
    scheduler = running(make_policy("srtf"), long, preemption=free)
    large = make_request("head", prompt_tokens=64, replay_output_tokens=1)
    assert evicted_for(scheduler, large, EngineRoom(sequences=1, batched_tokens=9, kv_blocks=2)) == []
    assert [r.id for r in scheduler.plan(0.0, EngineRoom(1, 9, kv_blocks=3)).evicted] == ["long"]


def timed(swaps: bool) -> VirtualServer:
    """A long request decodes; a short one comes after its 4th token, takes its slot and gives it back."""
    profile = make_profile(max_sequences=1, per_prefill_token_ms=10.0, swap_ms_per_token=3.0)
    settings = SchedulerSettings(preemption=Preemption(enabled=True, margin=0.0))
    batch = SimulatedBatch(profile, swaps=swaps)
    server = VirtualServer(Scheduler(make_policy("srtf"), settings), batch)
    long = make_request("long", prompt_tokens=16, replay_output_tokens=10)
    short = make_request("short", arrival_s=4.1, prompt_tokens=16, replay_output_tokens=2)
    server.run([long, short])
    assert server.started == ["long", "short", "long"]
    return server


def test_recomputing_costs_a_prefill_of_the_whole_prefix() -> None:
    """1.16 s for the prefill, 3 decodes, and the short request's 1.16 + 1; then 16 + 4 tokens again."""
    server = timed(swaps=False)
    assert server.end_s("short") == pytest.approx(4.16 + 2.16)
    assert server.end_s("long") == pytest.approx(6.32 + 1.2 + 5)
    assert server.timings["long"].max_token_gap_s == pytest.approx(2.16 + 1.2)


def test_swapping_costs_both_transfers_and_no_prefill() -> None:
    """20 tokens out and in again at 3 ms each, each blocking the step that follows."""
    server = timed(swaps=True)
    assert server.end_s("short") == pytest.approx(4.16 + 2.16 + 0.06)
    assert server.end_s("long") == pytest.approx(6.38 + 0.06 + 6)
    assert server.timings["long"].max_token_gap_s == pytest.approx(2.16 + 0.06 + 0.06 + 1)


def test_what_is_evicted_while_it_prefills_recomputes_even_if_the_engine_swaps() -> None:
    profile = make_profile(max_sequences=1, max_batched_tokens=8, swap_ms_per_token=3.0)
    settings = SchedulerSettings(preemption=Preemption(enabled=True, margin=0.0))
    server = VirtualServer(Scheduler(make_policy("srtf"), settings), SimulatedBatch(profile, swaps=True))
    server.run(
        [
            make_request("long", prompt_tokens=12, replay_output_tokens=10),
            make_request("short", arrival_s=0.5, prompt_tokens=8, replay_output_tokens=1),
        ]
    )
    assert server.started == ["long", "short", "long"]
    assert server.end_s("long") == pytest.approx(1 + 1 + 2 + 9)


@pytest.mark.parametrize("bad", [{"margin": -1.0}, {"margin": float("nan")}, {"restart_steps_per_token": -1}])
def test_impossible_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Preemption(**bad)  # type: ignore[arg-type]
