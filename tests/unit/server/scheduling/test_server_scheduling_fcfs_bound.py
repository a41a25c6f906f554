"""The bound that follows what FCFS would have done, and the default policy built on it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from support.requests import make_request

from rankserve.server.engines.simulated.profiles import find_profile
from rankserve.server.scheduling.fcfs_bound import (
    PACE_WINDOW,
    PROMPT_TOKEN_WORK,
    Agreement,
    FcfsBound,
    FcfsBoundSettings,
    LengthModel,
)
from rankserve.server.scheduling.policies import BoundedRanking, Policy, make_policy
from rankserve.server.simulation.columns import RequestColumns, columns
from rankserve.server.simulation.setup import SimulationSettings
from rankserve.server.simulation.simulator import simulate

EXACT = FcfsBoundSettings(share=1.0, forgetting=0.1, express_share=0.5, express_size=0.25, ageing=0.0)


def warm_bound(settings: FcfsBoundSettings = EXACT) -> FcfsBound:
    """A bound that knows its engine: one unit of work a second, predictions right."""
    bound = FcfsBound(settings)
    waits = make_request("waits", prompt_tokens=1, expected_tokens=10.0)
    bound.queued(waits, 0.0)
    for number in range(PACE_WINDOW):
        done = make_request(f"done{number}", prompt_tokens=1, expected_tokens=float(number + 5))
        bound.queued(done, 0.0)
        bound.started(done, None)
        done.output_tokens = number + 5
        bound.produced(done, number + 5)
        bound.finished(done)
    work = sum(range(5, 5 + PACE_WINDOW)) + PACE_WINDOW * PROMPT_TOKEN_WORK
    bound.look(work)
    bound.left(waits)
    return bound


def test_before_anything_finished_everybody_is_due() -> None:
    bound = FcfsBound(EXACT)
    for number in range(100):
        bound.queued(make_request(str(number), expected_tokens=50.0), float(number))
    assert bound.bound_s() == 0.0


def test_the_bound_is_the_wait_that_fcfs_would_give_and_is_forgotten_slowly() -> None:
    bound = warm_bound()
    start_s = 1000.0
    requests = [make_request(str(n), prompt_tokens=10, expected_tokens=98.0) for n in range(10)]
    for request in requests:
        bound.queued(request, start_s)
    # 10 requests of 98 output tokens and 10 prompt tokens at a fifth of that: 100 s of work each.
    assert bound.bound_s() == pytest.approx(1000.0)
    for request in requests:
        bound.started(request, None)
    bound.queued(make_request("later", prompt_tokens=10, expected_tokens=98.0), start_s + 100.0)
    assert bound.bound_s() == pytest.approx(1000.0 - 0.1 * 100.0)


def test_a_burst_before_the_pace_is_known_is_seen_once_it_is() -> None:
    bound = FcfsBound(EXACT)
    requests = [make_request(str(n), prompt_tokens=10, expected_tokens=98.0) for n in range(100)]
    for request in requests:
        bound.queued(request, 0.0)
    for request in requests[:PACE_WINDOW]:
        bound.started(request, None)
        request.output_tokens = 98
        bound.produced(request, 98)
        bound.finished(request)
    bound.look(100.0 * PACE_WINDOW)
    assert bound.bound_s() == pytest.approx(100.0 * (100 - PACE_WINDOW))


def test_short_work_passes_a_due_request_on_the_credit_of_due_starts() -> None:
    bound = warm_bound()
    long, other = (make_request(name, prompt_tokens=10, expected_tokens=98.0) for name in ("a", "b"))
    short, middling = (
        make_request("s", prompt_tokens=10, expected_tokens=18.0),
        make_request("m", prompt_tokens=10, expected_tokens=38.0),
    )
    for request in (long, other, short, middling):
        bound.queued(request, 1000.0)
    assert not bound.may_overtake(short, long), "nothing has been earned yet"
    bound.started(long, long)
    # 100 s of due work earned 50; the short one costs 20, which is less than a quarter of 100.
    assert bound.may_overtake(short, other)
    assert not bound.may_overtake(middling, other), "40 is more than a quarter"
    bound.started(short, other)
    again = [make_request(f"s{n}", prompt_tokens=10, expected_tokens=18.0) for n in range(2)]
    for request in again:
        bound.queued(request, 1000.0)
    assert bound.may_overtake(again[0], other)
    bound.started(again[0], other)
    assert not bound.may_overtake(again[1], other), "10 of credit are left"


def test_whatever_leaves_the_queue_leaves_the_sums() -> None:
    bound = warm_bound()
    before_s = bound.bound_s()
    gone = [make_request(str(n), prompt_tokens=1000, expected_tokens=5000.0) for n in range(3)]
    for request in gone:
        bound.queued(request, 1000.0)
    gone[1].expected_tokens = 7.0
    bound.rescored(gone[1])
    bound.left(gone[0])
    bound.left(gone[1])
    bound.started(gone[2], None)
    bound.queued(make_request("next", prompt_tokens=10, expected_tokens=98.0), 1e9)
    assert before_s < 100.0
    assert bound.bound_s() == pytest.approx(100.0)


def test_unscored_requests_count_as_what_finished_of_late() -> None:
    bound = warm_bound()
    bound.queued(make_request("unscored", prompt_tokens=10, expected_tokens=math.inf), 1e6)
    mean = 5 + (PACE_WINDOW - 1) / 2
    assert bound.bound_s() == pytest.approx(mean + 10 * PROMPT_TOKEN_WORK, rel=0.01)


@pytest.mark.parametrize(("power", "trust"), [(1.0, 1.0), (0.3, 1.0), (3.0, 1.0), (-1.0, 0.0)])
def test_predictions_are_trusted_if_they_order_answers_whatever_their_scale(
    power: float, trust: float
) -> None:
    agreement = Agreement()
    for actual in range(10, 410):
        agreement.observe(100.0 * (actual / 100.0) ** power + 1.0, actual)
    assert agreement.trust == trust


def test_predictions_that_say_nothing_are_hardly_trusted() -> None:
    draw, agreement = np.random.default_rng(0), Agreement()
    for predicted, actual in zip(draw.integers(10, 400, 2000), draw.integers(10, 400, 2000), strict=True):
        agreement.observe(float(predicted), int(actual))
    assert agreement.trust < 0.25


def test_an_empty_answer_is_an_answer() -> None:
    bound = warm_bound()
    bound.queued(make_request("waits", prompt_tokens=10, expected_tokens=98.0), 1000.0)
    for number in range(PACE_WINDOW):
        empty = make_request(f"empty{number}", prompt_tokens=10, expected_tokens=50.0)
        bound.queued(empty, 1000.0)
        bound.started(empty, None)
        bound.produced(empty, 0)
        bound.finished(empty)
    bound.look(1001.0)
    assert 0.0 < bound.bound_s() < math.inf


def test_lengths_are_expected_as_answers_were() -> None:
    model = LengthModel()
    for predicted in range(10, 410):
        model.observe(float(predicted), predicted // 2 + 100)
    assert model.tokens(2, 300.0) == pytest.approx(350.0, rel=0.03)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="express_share"):
        FcfsBoundSettings(express_share=-0.1)


def on_off_load(seed: int, *, noise: float, sign: float = 1.0) -> RequestColumns:
    """Bursts of 60 requests a second for 20 s and 15 for 40 s; lengths predicted from a noisy look."""
    draw = np.random.default_rng(seed)
    gaps_s = draw.exponential(1.0, 3000)
    arrivals_s, now_s = [], 0.0
    for gap_s in gaps_s:
        now_s += gap_s / (60.0 if now_s % 60 < 20 else 15.0)
        arrivals_s.append(now_s)
    output_tokens = np.exp(draw.normal(4.4, 0.9, 3000)).clip(1, 512).astype(int)
    seen = np.log(output_tokens) + noise * draw.normal(size=3000)
    calibration = sign * 0.9**2 / (0.9**2 + noise**2)
    expected = np.exp(4.4 + calibration * (seen - 4.4))
    return columns(
        np.array(arrivals_s), np.full(3000, 20), output_tokens, score=-expected, expected_tokens=expected
    )


def figures(requests: RequestColumns, policy: Policy) -> tuple[float, float, float]:
    """Mean s/token, p99 E2E latency and longest TTFT on 64 slots."""
    profile = replace(find_profile("a100-llama3-8b"), max_sequences=64)
    outcome = simulate(requests, policy, profile, SimulationSettings())
    e2e_s = outcome.end_s - requests.arrival_s
    ttft_s = outcome.first_token_s - requests.arrival_s
    per_token = e2e_s / requests.true_output_tokens
    return float(per_token.mean()), float(np.percentile(e2e_s, 99)), float(ttft_s.max())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_most_of_rankings_gain_is_kept_at_about_the_tail_of_fcfs(seed: int) -> None:
    requests = on_off_load(seed, noise=0.8)
    fcfs, plain, bounded = (
        figures(requests, make_policy(name)) for name in ("fcfs", "ranking", "bounded_ranking")
    )
    assert plain[1] > 1.5 * fcfs[1], "the load does not tell the policies apart"
    assert (fcfs[0] - bounded[0]) / (fcfs[0] - plain[0]) > 0.7
    assert bounded[1] < 1.25 * fcfs[1]
    assert bounded[2] < 1.25 * fcfs[2]


def test_inverted_predictions_fall_back_to_fcfs() -> None:
    requests = on_off_load(4, noise=0.3, sign=-1.0)
    fcfs, bounded = (figures(requests, make_policy(name)) for name in ("fcfs", "bounded_ranking"))
    assert bounded[0] < 1.1 * fcfs[0]
    assert bounded[1] < 1.1 * fcfs[1]


def test_the_order_is_smiths_rule() -> None:
    policy = BoundedRanking()
    key = policy.key(make_request("r", prompt_tokens=100, expected_tokens=80.0))
    assert key == pytest.approx(math.log(math.sqrt(80.0 * (80.0 + PROMPT_TOKEN_WORK * 100))))


def test_a_flood_does_not_make_another_tenant_wait_even_if_predictions_are_useless() -> None:
    draw = np.random.default_rng(5)
    flood, light = np.cumsum(draw.exponential(1 / 60.0, 3000)), np.cumsum(draw.exponential(2.0, 25))
    arrival_s = np.concatenate([flood, light])
    order = np.argsort(arrival_s)
    count = len(arrival_s)
    requests = columns(
        arrival_s[order],
        np.full(count, 20),
        draw.integers(50, 200, count),
        tenant=(np.arange(count) >= len(flood)).astype(int)[order],
        expected_tokens=draw.integers(50, 200, count).astype(float),
    )
    profile = replace(find_profile("a100-llama3-8b"), max_sequences=64)
    outcome = simulate(requests, make_policy("bounded_ranking"), profile, SimulationSettings())
    ttft_s = outcome.first_token_s - requests.arrival_s
    assert np.percentile(ttft_s[requests.tenant == 0], 50) > 5.0, "the flood does not fill the queue"
    assert ttft_s[requests.tenant == 1].max() < 1.0
