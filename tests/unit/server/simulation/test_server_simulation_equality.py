"""The compiled simulation, which jumps from event to event, against the scheduler and batch of the server."""

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from support.scheduling_strategies import FAIR_SHARES, policies, starvation_settings

from rankserve.server.engines.simulated.profile import Profile
from rankserve.server.engines.simulated.profiles import find_profile
from rankserve.server.scheduling.fair_share import FairShare
from rankserve.server.scheduling.policies import BUILT_IN, Policy, make_policy
from rankserve.server.simulation.columns import RequestColumns, columns
from rankserve.server.simulation.outcome import Outcome
from rankserve.server.simulation.setup import SimulationSettings
from rankserve.server.simulation.simulator import simulate
from rankserve.server.simulation.stepwise import simulate_stepwise

TIMES = ("scheduled_s", "first_token_s", "end_s", "max_token_gap_s")
Run = tuple[RequestColumns, Profile, SimulationSettings]


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """A small run with any mix of options. Real numbers, so that no two moments fall together by chance."""

    def choose(*values: Any) -> Any:
        return draw(st.sampled_from(values))

    count = draw(st.integers(1, 150))
    kv_blocks, block_size = choose((28416, 16), (600, 16), (300, 16), (9000, 1), (200, 32))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    arrival_s = np.cumsum(numbers.exponential(1 / choose(5, 20, 60, 200), count))
    if draw(st.booleans()):
        arrival_s = np.sort(numbers.choice(arrival_s, count))  # Some come together.
    output_tokens = numbers.lognormal(choose(2.0, 4.0), 1, count).clip(1, 700).astype(int)
    longest_prompt = min(choose(50, 400, 3000), kv_blocks * block_size - 800)
    prompt_tokens = numbers.integers(1, longest_prompt, count)
    expected = output_tokens * np.exp(numbers.normal(size=count) / 2)
    requests = columns(
        arrival_s,
        prompt_tokens,
        output_tokens,
        max_tokens=np.maximum(output_tokens, numbers.integers(1, 800, count)),
        priority=numbers.integers(-1, 2, count) if draw(st.booleans()) else None,
        tenant=numbers.integers(0, choose(2, 3, 20), count) if draw(st.booleans()) else None,
        score=numbers.normal(size=count) - expected,
        expected_tokens=np.where(numbers.random(count) < choose(0.0, 0.9, 1.0), expected, np.inf),
        expected_tokens_p90=np.where(numbers.random(count) < choose(0.5, 1.0), expected * 2.3, np.inf),
        deadline_s=arrival_s + numbers.exponential(5, count),
    )
    max_sequences = choose(1, 4, 16, 64)
    profile = replace(
        find_profile("a100-llama3-8b"),
        kv_blocks=kv_blocks,
        block_size=block_size,
        max_model_len=min(8192, kv_blocks * block_size),
        max_sequences=max_sequences,
        max_batched_tokens=max(max_sequences, choose(64, 512, 2048)),
        watermark=choose(0.0, 0.01, 0.1),
        prefix_caching=draw(st.booleans()),
        shared_prefix_tokens=choose(0, 0, 1, 2) * block_size,
        swap_ms_per_token=choose(0.0, 0.005),
    )
    settings = SimulationSettings(
        starvation=draw(starvation_settings([1, 20, 100], [0.5, 3.0])),
        fair_share=draw(FAIR_SHARES),
        preemption=choose("off", "recompute", "swap"),
        preemption_margin=choose(0.0, 1.0, 3.0),
        kv_reservation=choose("none", "none", "predicted", "max"),
        gather_s=choose(0.0, 0.0, 0.03, 0.5),
    )
    return requests, profile, settings


@pytest.mark.parametrize("policy", sorted(BUILT_IN))
@settings(max_examples=10)
@given(data=st.data(), run=runs())
def test_jumping_gives_the_timestamps_of_stepping(policy: str, data: st.DataObject, run: Run) -> None:
    compare(data.draw(policies(policy)), run)


@settings(max_examples=3)
@given(run=runs())
def test_step_times_from_tables_jump_as_they_step(run: Run) -> None:
    requests, profile, settings = run
    profile = replace(profile, step_times=find_profile("rtx4090-llama3.1-8b").step_times)
    compare(make_policy("bounded_ranking"), (requests, profile, settings))


@settings(max_examples=6)
@given(run=runs())
def test_what_prompts_cost_within_themselves_jumps_as_it_steps(run: Run) -> None:
    requests, profile, settings = run
    profile = replace(profile, step_times=profile.step_times._replace(prefill_pair_ms=1e-4))
    compare(make_policy("bounded_ranking"), (requests, profile, settings))


def some_requests() -> RequestColumns:
    numbers = np.random.default_rng(1)
    arrival_s = np.cumsum(numbers.exponential(1 / 60, 100))
    return columns(arrival_s, numbers.integers(1, 400, 100), numbers.integers(1, 200, 100))


def test_a_run_that_pauses_for_progress_is_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    requests, profile = some_requests(), find_profile("a100-llama3-8b")
    whole = simulate(requests, make_policy("bounded_ranking"), profile, SimulationSettings())
    monkeypatch.setattr("rankserve.server.simulation.simulator._PROGRESS_EVERY", 10)
    seen: list[int] = []
    paused = simulate(
        requests, make_policy("bounded_ranking"), profile, SimulationSettings(), on_progress=seen.append
    )
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1] == len(requests)
    np.testing.assert_array_equal(whole.end_s, paused.end_s)


@pytest.mark.parametrize(("prompt_weight", "output_weight"), [(1.0, 2.0), (0.0, 2.0), (8.0, 0.5)])
def test_tenants_are_charged_what_the_settings_say(prompt_weight: float, output_weight: float) -> None:
    requests = replace(some_requests(), tenant=np.arange(100) % 3)
    profile = replace(find_profile("a100-llama3-8b"), max_sequences=2)
    fair_share = FairShare(prompt_token_weight=prompt_weight, output_token_weight=output_weight)
    compare(make_policy("fcfs"), (requests, profile, SimulationSettings(fair_share=fair_share)))


def compare(policy: Policy, run: Run) -> None:
    requests, profile, settings = run
    jumped = simulate(requests, policy, profile, settings)
    stepped = simulate_stepwise(requests, policy, profile, settings)
    assert_equal(jumped, stepped)
    # Blocks taken within a jump count as if taken evenly, which is off by less than one a sequence.
    assert jumped.totals.kv_blocks_mean == pytest.approx(
        stepped.totals.kv_blocks_mean, rel=0.05, abs=profile.max_sequences
    )


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
