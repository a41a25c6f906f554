"""Scores of a chosen quality, made from true lengths."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from rankserve.client.evaluation import degraded_scores
from rankserve.client.evaluation.degraded import TOLERANCE

LENGTHS = np.maximum(1, np.exp(np.random.default_rng(5).normal(4.6, 0.9, 3000))).astype(int)


@pytest.mark.parametrize("tau", [0.9, 0.6, 0.3, 0.0, -0.4, -0.9])
def test_scores_agree_with_lengths_as_much_as_was_asked(tau: float) -> None:
    made = degraded_scores(LENGTHS, tau, seed=1)
    assert made.tau == pytest.approx(tau, abs=TOLERANCE)
    assert made.tau == pytest.approx(float(kendalltau(-made.score, LENGTHS, variant="b").statistic))


def test_a_sample_of_a_large_workload_is_corrected_on_all_of_it() -> None:
    lengths = np.resize(LENGTHS, 60_000)
    assert degraded_scores(lengths, 0.5, seed=1).tau == pytest.approx(0.5, abs=TOLERANCE)


def test_tau_1_is_the_exact_order_and_minus_1_its_reverse() -> None:
    exact = degraded_scores(LENGTHS, 1, seed=1)
    assert exact.tau == pytest.approx(1.0)
    assert np.array_equal(np.argsort(-exact.score, kind="stable"), np.argsort(LENGTHS, kind="stable"))
    assert degraded_scores(LENGTHS, -1, seed=1).tau == pytest.approx(-1.0)


def test_scores_follow_the_seed_alone() -> None:
    first, again, other = (degraded_scores(LENGTHS, 0.5, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.score, again.score)
    assert np.corrcoef(first.score, other.score)[0, 1] < 0.9


def test_expected_lengths_are_calibrated_and_never_longer_at_a_higher_score() -> None:
    made = degraded_scores(LENGTHS, 0.6, seed=1)
    order = np.argsort(made.score)
    assert np.all(np.diff(made.expected_tokens[order]) <= 1e-9)
    assert np.all(np.diff(made.expected_tokens_p90[order]) <= 1e-9)
    assert np.mean(made.expected_tokens >= LENGTHS) == pytest.approx(0.5, abs=0.03)
    assert np.mean(made.expected_tokens_p90 >= LENGTHS) == pytest.approx(0.9, abs=0.03)


def test_random_scores_expect_the_same_of_all() -> None:
    made = degraded_scores(LENGTHS, 0, seed=1)
    assert np.ptp(made.expected_tokens) < 0.3 * np.median(LENGTHS)


def test_what_ties_forbid_is_told_by_the_tau_reached() -> None:
    """With two lengths, each that of half the requests, noise breaks ties: but for the exact order, 0.7."""
    made = degraded_scores(np.array([10, 500] * 200), 0.95, seed=1)
    assert made.tau == pytest.approx(0.707, abs=0.01)


@pytest.mark.parametrize(
    ("lengths", "tau"), [([5, 6], 1.1), ([5, 6], float("nan")), ([5, 5], 0.5), ([], 0.5)]
)
def test_what_cannot_be_ordered_is_refused(lengths: list[int], tau: float) -> None:
    with pytest.raises(ValueError, match=r"Kendall's tau is between|two different"):
        degraded_scores(np.array(lengths, np.int64), tau, seed=0)
