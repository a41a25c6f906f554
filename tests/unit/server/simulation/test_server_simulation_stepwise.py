"""The step-by-step simulation: what it measures, by hand."""

from collections.abc import Callable

import numpy as np
import pytest
from support.requests import make_profile

from rankserve.server.scheduling.policies import Policy, make_policy
from rankserve.server.scheduling.request import Request
from rankserve.server.simulation.columns import RequestColumns, columns
from rankserve.server.simulation.outcome import Outcome
from rankserve.server.simulation.setup import SimulationSettings
from rankserve.server.simulation.simulator import simulate
from rankserve.server.simulation.stepwise import simulate_stepwise


def three(lengths: list[int], arrival_s: list[float]) -> RequestColumns:
    return columns(np.array(arrival_s), np.full(len(lengths), 16), np.array(lengths))


def test_what_is_measured_of_each_request_and_of_the_run() -> None:
    """One slot, a step a second: 2 tokens from t 0, 3 from t 2, idle from t 5 to t 10, 1 from t 10."""
    outcome = simulate_stepwise(
        three([2, 3, 1], [0.0, 0.5, 10.0]),
        make_policy("fcfs"),
        make_profile(max_sequences=1),
        SimulationSettings(),
        timeline=4,
    )
    assert outcome.scheduled_s.tolist() == [0.0, 2.0, 10.0]
    assert outcome.first_token_s.tolist() == [1.0, 3.0, 11.0]
    assert outcome.end_s.tolist() == [2.0, 5.0, 11.0]
    assert outcome.max_token_gap_s.tolist() == [1.0, 1.0, 0.0]
    assert outcome.preemptions.tolist() == [0, 0, 0]
    assert outcome.promoted.tolist() == [False, False, False]
    totals = outcome.totals
    assert (totals.steps, totals.busy_s, totals.end_s) == (6, 6.0, 11.0)
    assert (totals.preemptions, totals.promotions, totals.waiting_max) == (0, 0, 1)
    assert totals.waiting_mean == pytest.approx(1.5 / 11)
    # 16 tokens take one block, the 17th a second: 2 + 3 + 1 steps, of which 1 + 2 with two.
    assert totals.kv_blocks_mean == pytest.approx(9 / 6)
    assert totals.kv_blocks_max == 2
    assert outcome.timeline.tolist() == [[0, 1, 0, 1], [1, 1, 1, 2], [2, 1, 0, 1], [3, 1, 0, 2]]


@pytest.mark.parametrize("run", [simulate, simulate_stepwise])
def test_a_request_in_an_empty_queue_waits_for_others(run: Callable[..., Outcome]) -> None:
    """A step a second, half a second to gather: in the first a shorter one comes, in the second nobody. The
    last comes while one runs, and its moment is over when that has ended."""
    outcome = run(
        three([3, 1, 1, 1], [1.0, 1.25, 6.0, 6.75]),
        make_policy("sjf"),
        make_profile(max_sequences=1),
        SimulationSettings(gather_s=0.5),
    )
    assert outcome.scheduled_s.tolist() == [2.5, 1.5, 6.5, 7.5]
    assert outcome.end_s.tolist() == [5.5, 2.5, 7.5, 8.5]
    assert outcome.totals.busy_s == 6.0


def test_preemption_shows_as_the_largest_gap() -> None:
    """The long one yields at t 3, waits until t 4 and resumes: its 4th token comes 2 s after the third."""
    outcome = simulate_stepwise(
        three([5, 1], [0.0, 2.5]),
        make_policy("srtf"),
        make_profile(max_sequences=1),
        SimulationSettings(preemption="recompute"),
    )
    assert outcome.end_s.tolist() == [6.0, 4.0]
    assert outcome.max_token_gap_s.tolist() == [2.0, 0.0]
    assert outcome.preemptions.tolist() == [1, 0]


def test_it_takes_policies_that_the_compiled_simulation_does_not_know() -> None:
    class LongestFirst(Policy):
        name = "longest"

        def key(self, request: Request) -> float:
            return -request.true_output_tokens

        def prefers(self, head: Request, victim: Request, cost_tokens: float) -> bool:
            return False

    outcome = simulate_stepwise(
        three([1, 2, 3], [0.0, 0.0, 0.0]), LongestFirst(), make_profile(max_sequences=1), SimulationSettings()
    )
    assert outcome.end_s.tolist() == [6.0, 5.0, 3.0]


def test_progress_is_told_and_too_long_requests_are_refused() -> None:
    told: list[int] = []
    simulate_stepwise(
        three([1] * 2_500, [0.0] * 2_500),
        make_policy("fcfs"),
        make_profile(max_sequences=100),
        SimulationSettings(),
        on_progress=told.append,
    )
    assert told == [1_000, 2_000]
    with pytest.raises(ValueError, match="max_model_len"):
        simulate_stepwise(three([9_000], [0.0]), make_policy("fcfs"), make_profile(), SimulationSettings())
