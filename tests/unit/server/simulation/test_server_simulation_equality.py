"""The compiled simulation, which jumps from event to event, against the scheduler and batch of the server."""

from dataclasses import replace

import numpy as np
import pytest

from rankserve.server.engines.simulated.profile import Profile
from rankserve.server.engines.simulated.profiles import find_profile
from rankserve.server.scheduling.fair_share import FairShare
from rankserve.server.scheduling.policies import BUILT_IN, make_policy
from rankserve.server.scheduling.starvation import StarvationSettings
from rankserve.server.simulation.columns import RequestColumns, columns
from rankserve.server.simulation.outcome import Outcome
from rankserve.server.simulation.setup import SimulationSettings
from rankserve.server.simulation.simulator import simulate
from rankserve.server.simulation.stepwise import simulate_stepwise

TIMES = ("scheduled_s", "first_token_s", "end_s", "max_token_gap_s")
CASES = 6


@pytest.mark.parametrize("policy", sorted(BUILT_IN))
@pytest.mark.parametrize("case", range(CASES))
def test_jumping_gives_the_timestamps_of_stepping(policy: str, case: int) -> None:
    draw = np.random.default_rng([case, sorted(BUILT_IN).index(policy)])
    requests, profile, settings = draw_run(draw)
    jumped = simulate(requests, make_policy(policy), profile, settings)
    stepped = simulate_stepwise(requests, make_policy(policy), profile, settings)
    assert_equal(jumped, stepped)


def test_step_times_from_tables_jump_as_they_step() -> None:
    draw = np.random.default_rng(0)
    requests, profile, settings = draw_run(draw)
    profile = replace(profile, step_times=find_profile("rtx4090-llama3.1-8b").step_times)
    policy = make_policy("bounded_ranking")
    assert_equal(
        simulate(requests, policy, profile, settings), simulate_stepwise(requests, policy, profile, settings)
    )


@pytest.mark.parametrize("case", range(CASES))
def test_what_prompts_cost_within_themselves_jumps_as_it_steps(case: int) -> None:
    requests, profile, settings = draw_run(np.random.default_rng([case, 99]))
    profile = replace(profile, step_times=profile.step_times._replace(prefill_pair_ms=1e-4))
    policy = make_policy("bounded_ranking")
    jumped = simulate(requests, policy, profile, settings)
    assert_equal(jumped, simulate_stepwise(requests, policy, profile, settings))


def test_a_run_that_pauses_for_progress_is_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    requests, profile, settings = draw_run(np.random.default_rng(1))
    whole = simulate(requests, make_policy("bounded_ranking"), profile, settings)
    monkeypatch.setattr("rankserve.server.simulation.simulator._PROGRESS_EVERY", 10)
    seen: list[int] = []
    paused = simulate(requests, make_policy("bounded_ranking"), profile, settings, on_progress=seen.append)
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1] == len(requests)
    np.testing.assert_array_equal(whole.end_s, paused.end_s)


def draw_run(draw: np.random.Generator) -> tuple[RequestColumns, Profile, SimulationSettings]:
    """A small run with any mix of options. Real numbers, so that no two moments fall together by chance."""
    count = int(draw.integers(30, 150))
    arrival_s = np.cumsum(draw.exponential(1 / draw.choice([5, 20, 60, 200]), count))
    output_tokens = draw.lognormal(draw.choice([2.0, 4.0]), 1, count).clip(1, 700).astype(int)
    kv_blocks = int(draw.choice([300, 600, 28416]))
    prompt_tokens = draw.integers(1, int(draw.choice([50, 400, 3000])), count).clip(1, kv_blocks * 16 - 800)
    expected = output_tokens * np.exp(draw.normal(size=count) / 2)
    several_tenants, several_bands = draw.random() < 0.4, draw.random() < 0.3
    requests = columns(
        arrival_s,
        prompt_tokens,
        output_tokens,
        max_tokens=np.maximum(output_tokens, draw.integers(1, 800, count)),
        priority=draw.integers(-1, 2, count) if several_bands else None,
        tenant=draw.integers(0, 3, count) if several_tenants else None,
        score=draw.normal(size=count) - expected,
        expected_tokens=np.where(draw.random(count) < 0.9, expected, np.inf),
        expected_tokens_p90=expected * 2.3,
        deadline_s=arrival_s + draw.exponential(5, count),
    )
    max_sequences = int(draw.choice([1, 4, 16, 64]))
    profile = replace(
        find_profile("a100-llama3-8b"),
        kv_blocks=kv_blocks,
        max_model_len=min(8192, kv_blocks * 16),
        max_sequences=max_sequences,
        max_batched_tokens=max(max_sequences, int(draw.choice([64, 512, 2048]))),
        watermark=float(draw.choice([0.0, 0.01, 0.1])),
        prefix_caching=bool(draw.random() < 0.5),
        shared_prefix_tokens=int(draw.choice([0, 0, 16, 32])),
        swap_ms_per_token=0.005,
    )
    settings = SimulationSettings(
        starvation=StarvationSettings(
            threshold_steps=int(draw.choice([0, 0, 20, 100])),
            quantum_steps=int(draw.choice([1, 10, 50])),
            max_wait_s=(None, None, 0.5, 3.0)[draw.integers(4)],
        ),
        fair_share=FairShare(enabled=bool(draw.random() < 0.8)),
        preemption=str(draw.choice(["off", "recompute", "swap"])),
        preemption_margin=float(draw.choice([0.0, 1.0, 3.0])),
        kv_reservation=str(draw.choice(["none", "none", "predicted", "max"])),
        gather_s=float(draw.choice([0.0, 0.0, 0.03, 0.5])),
    )
    return requests, profile, settings


def assert_equal(jumped: Outcome, stepped: Outcome) -> None:
    for name in TIMES:
        # Between two tokens there is a difference of two times, which leaves fewer digits.
        tolerance = 1e-9 if name != "max_token_gap_s" else 1e-7
        np.testing.assert_allclose(
            getattr(jumped, name), getattr(stepped, name), rtol=tolerance, err_msg=name
        )
    np.testing.assert_array_equal(jumped.preemptions, stepped.preemptions)
    np.testing.assert_array_equal(jumped.promoted, stepped.promoted)
    ours, theirs = jumped.totals, stepped.totals
    assert (ours.steps, ours.preemptions, ours.promotions) == (
        theirs.steps,
        theirs.preemptions,
        theirs.promotions,
    )
    assert (ours.kv_blocks_max, ours.waiting_max) == (theirs.kv_blocks_max, theirs.waiting_max)
    assert ours.kv_blocks_mean == pytest.approx(theirs.kv_blocks_mean, rel=0.05)
