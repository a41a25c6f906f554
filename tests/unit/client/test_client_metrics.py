"""Metrics against values worked out by hand."""

from collections.abc import Callable
from dataclasses import astuple, replace

import pytest

from rankserve.client.evaluation import (
    Summary,
    compare,
    evaluate,
    improvement_ratio,
    improvement_ratio_normalised,
    improvement_ratio_p99,
    kendall_tau,
    kendall_tau_ceiling,
    kendall_tau_prompt_length,
)
from rankserve.records.results import ResultRecord, Run, RunHeader

MakeRun = Callable[..., Run]


@pytest.fixture
def fcfs(make_run: MakeRun) -> Run:
    return make_run("fcfs", [10, 2, 1])


@pytest.fixture
def shortest_first(make_run: MakeRun) -> Run:
    return make_run("sjf", [1, 2, 10])


def test_the_paper_s_worked_example(fcfs: Run, shortest_first: Run) -> None:
    before, after = evaluate(fcfs), evaluate(shortest_first)
    assert before.normalised_s_per_token is not None
    assert after.normalised_s_per_token is not None
    assert before.normalised_s_per_token.mean == pytest.approx((10 / 10 + 12 / 2 + 13 / 1) / 3)
    assert before.normalised_s_per_token.mean == pytest.approx(6.67, abs=0.005)
    assert after.normalised_s_per_token.mean == pytest.approx((1 / 1 + 3 / 2 + 13 / 10) / 3)
    assert after.normalised_s_per_token.mean == pytest.approx(1.27, abs=0.005)


def test_every_latency_of_the_worked_example(fcfs: Run) -> None:
    metrics = evaluate(fcfs)
    assert metrics.e2e_s is not None
    assert astuple(metrics.e2e_s) == pytest.approx((35 / 3, 12, 12.8, 12.98, 13, 3))
    assert metrics.ttft_s is not None
    assert metrics.ttft_s.mean == pytest.approx((1 + 11 + 13) / 3)
    assert metrics.tpot_s is not None
    assert (metrics.tpot_s.mean, metrics.tpot_s.count) == (1.0, 2)
    assert metrics.max_waiting_s is not None
    assert metrics.max_waiting_s.max == 13
    assert metrics.duration_s == 13
    assert metrics.requests_per_s == pytest.approx(3 / 13)
    assert metrics.output_tokens_per_s == pytest.approx(1.0)
    assert (metrics.queue_depth_mean, metrics.queue_depth_max) == (1.0, 2)


def test_times_are_in_the_llm_s_seconds(fcfs: Run) -> None:
    scaled = evaluate(Run(replace(fcfs.header, time_scale=10.0), fcfs.results))
    plain = evaluate(fcfs)
    for name in ("e2e_s", "ttft_s", "tpot_s", "normalised_s_per_token", "max_waiting_s"):
        assert getattr(scaled, name).mean == pytest.approx(10 * getattr(plain, name).mean)
    assert scaled.duration_s == 130
    assert scaled.requests_per_s == pytest.approx(plain.requests_per_s / 10)


def test_a_first_token_seen_by_the_client_is_believed(fcfs: Run) -> None:
    result = replace(fcfs.results[0], sent_s=1.0, first_token_s=3.5)
    metrics = evaluate(Run(fcfs.header, (result,)))
    assert metrics.ttft_s is not None
    assert metrics.ttft_s.mean == 2.5


def test_time_to_first_token_without_token_events_counts_what_the_server_cannot_see() -> None:
    """2 s pass on the way to the server, before its clock starts."""
    result = ResultRecord(
        "a",
        "finished",
        sent_s=0.0,
        end_s=12.0,
        output_tokens=5,
        server_first_token_s=6.0,
        server_end_s=10.0,
        max_token_gap_s=3.0,
    )
    metrics = evaluate(Run(RunHeader("fcfs", "x"), (result,)))
    assert metrics.ttft_s is not None
    assert metrics.ttft_s.mean == 8.0
    assert metrics.tpot_s is not None
    assert metrics.tpot_s.mean == 1.0


def test_the_longest_silence_may_be_a_gap_between_tokens(fcfs: Run) -> None:
    evicted = replace(fcfs.results[0], max_token_gap_s=7.0)
    metrics = evaluate(Run(fcfs.header, (evicted,)))
    assert metrics.max_waiting_s is not None
    assert metrics.max_waiting_s.max == 7.0


def test_improvement_ratios(fcfs: Run, shortest_first: Run) -> None:
    assert improvement_ratio(fcfs, shortest_first) == pytest.approx((35 / 3) / (17 / 3))
    assert improvement_ratio_normalised(fcfs, shortest_first) == pytest.approx((20 / 3) / (3.8 / 3))
    assert improvement_ratio_p99(fcfs, shortest_first) == pytest.approx(12.98 / 12.8)
    assert compare(fcfs, fcfs).improvement_ratio == 1.0


def test_runs_at_different_time_scales_compare_in_the_llm_s_seconds(fcfs: Run) -> None:
    faster = Run(
        replace(fcfs.header, time_scale=10.0),
        tuple(replace(result, end_s=result.end_s / 10) for result in fcfs.results),
    )
    assert improvement_ratio(fcfs, faster) == pytest.approx(1.0)


def test_ratios_use_only_requests_finished_in_both(fcfs: Run, shortest_first: Run) -> None:
    """Without the longest request: FCFS 12 and 13 s, shortest first 3 and 1 s."""
    lost = tuple(
        replace(result, outcome="unavailable", end_s=1e6) if result.id == "r10" else result
        for result in shortest_first.results
    )
    comparison = compare(fcfs, Run(shortest_first.header, lost))
    assert comparison.common == 2
    assert comparison.improvement_ratio == pytest.approx(25 / 4)
    nothing = compare(fcfs, Run(shortest_first.header, ()))
    assert (nothing.common, nothing.improvement_ratio, nothing.improvement_ratio_p99) == (0, None, None)


def test_failed_requests_are_counted_and_in_no_figure(fcfs: Run) -> None:
    failed = ResultRecord("f", "resource_exhausted", sent_s=0.0, end_s=900.0, prompt_chars=1, score=99.0)
    cancelled = ResultRecord("c", "cancelled", sent_s=0.0, end_s=900.0)
    metrics = evaluate(Run(fcfs.header, (*fcfs.results, failed, cancelled, cancelled)))
    assert (metrics.requests, metrics.finished, metrics.failed) == (6, 3, 3)
    assert metrics.failures == {"resource_exhausted": 1, "cancelled": 2}
    alone = evaluate(fcfs)
    for name in ("e2e_s", "duration_s", "requests_per_s", "kendall_tau", "kendall_tau_prompt_length"):
        assert getattr(metrics, name) == getattr(alone, name)


def test_nothing_finished_means_no_figures_rather_than_zeros() -> None:
    failed = ResultRecord("f", "cancelled", sent_s=0.0, end_s=1.0)
    metrics = evaluate(Run(RunHeader("fcfs", "x"), (failed,)))
    assert (metrics.e2e_s, metrics.ttft_s, metrics.kendall_tau, metrics.queue_depth_max) == (None,) * 4
    assert metrics.requests_per_s == 0.0


def scored(*pairs: tuple[float | None, int]) -> Run:
    results = tuple(
        ResultRecord(f"r{place}", "finished", 0.0, 1.0, output_tokens=tokens, score=score)
        for place, (score, tokens) in enumerate(pairs)
    )
    return Run(RunHeader("ranking", "x"), results)


def test_tau_is_positive_when_high_scores_are_short_answers() -> None:
    assert kendall_tau(scored((3.0, 1), (2.0, 5), (1.0, 9))) == pytest.approx(1.0)
    assert kendall_tau(scored((1.0, 1), (2.0, 5), (3.0, 9))) == pytest.approx(-1.0)
    # One of the three pairs is the wrong way round.
    assert kendall_tau(scored((3.0, 5), (2.0, 1), (1.0, 9))) == pytest.approx(1 / 3)


def test_tau_b_accounts_for_ties() -> None:
    """2 concordant pairs, one tie on each side: 2 / sqrt((3 - 1) x 3)."""
    assert kendall_tau(scored((2.0, 1), (2.0, 5), (1.0, 9))) == pytest.approx(2 / 6**0.5)


def test_there_is_no_tau_without_an_order() -> None:
    assert kendall_tau(scored((None, 1), (None, 2))) is None
    assert kendall_tau(scored((1.0, 1))) is None
    assert kendall_tau(scored((1.0, 1), (1.0, 2))) is None
    assert kendall_tau(scored((2.0, 1), (1.0, 9), (None, 500))) == pytest.approx(1.0)


def test_the_ceiling_is_the_mean_of_the_other_samples(fcfs: Run) -> None:
    assert kendall_tau_ceiling(fcfs) == pytest.approx(1.0)
    lengths = [((4, 8), 1), ((1, 3), 5), ((9, 9), 9)]
    results = tuple(
        ResultRecord(f"r{place}", "finished", 0.0, 1.0, output_tokens=tokens, other_lengths=others)
        for place, (others, tokens) in enumerate(lengths)
    )
    assert kendall_tau_ceiling(Run(fcfs.header, results)) == pytest.approx(1 / 3)
    assert kendall_tau_ceiling(scored((2.0, 1), (1.0, 2))) is None


def test_the_prompt_length_baseline_takes_short_prompts_first(fcfs: Run) -> None:
    """In the worked example the longest answers have the shortest prompts."""
    assert kendall_tau_prompt_length(fcfs) == pytest.approx(-1.0)


def test_a_summary_of_nothing_is_none() -> None:
    assert Summary.of([]) is None
    assert Summary.of([2.0]) == Summary(2.0, 2.0, 2.0, 2.0, 2.0, 1)
