"""Results as columns give the figures that records give."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from rankserve.client.evaluation import as_columns, build_report, compare, evaluate, read_columns
from rankserve.client.evaluation.as_json import to_json
from rankserve.records.results import ResultRecord, Run, RunHeader, write_run

MakeRun = Callable[..., Run]


@pytest.fixture
def runs() -> list[Run]:
    """Two runs of the same requests in another order, with failures, missing scores and several lengths."""

    def run(policy: str, seed: int) -> Run:
        draw = np.random.default_rng(seed)
        results = []
        for row in draw.permutation(200).tolist():
            sent_s, first_s = float(row), float(draw.uniform(1, 5))
            end_s = first_s + float(draw.uniform(0, 9))
            results.append(
                ResultRecord(
                    id=f"r{row}",
                    outcome="unavailable" if draw.random() < 0.1 else "finished",
                    sent_s=sent_s,
                    end_s=sent_s + end_s,
                    first_token_s=sent_s + first_s if draw.random() < 0.5 else None,
                    output_tokens=row % 40 + 1,
                    other_lengths=tuple(range(1, row % 4 + 1)),
                    prompt_chars=row * 7 % 31,
                    score=None if row % 9 == 0 else float(-(row % 40)) + float(draw.normal(scale=9)),
                    server_queued_s=0.01,
                    server_first_token_s=first_s,
                    server_end_s=end_s,
                    max_token_gap_s=float(draw.uniform(0, 6)),
                    preemptions=row % 3,
                    promoted=row % 5 == 0,
                )
            )
        header = RunHeader(policy, "x", time_scale=2.0, queue_depth=((0.0, 2), (1.0, 5)))
        return Run(header, tuple(results))

    return [run("fcfs", 1), run("ranking", 2)]


def test_latencies_of_columns_are_those_of_single_records(runs: list[Run]) -> None:
    """By the definitions, one record after the other in plain Python."""
    run = runs[0]
    e2e_s, ttft_s, tpot_s, normalised, waiting = [], [], [], [], []
    for result in run.results:
        if result.outcome != "finished":
            continue
        e2e = (result.end_s - result.sent_s) * 2.0
        decode = (result.server_end_s - result.server_first_token_s) * 2.0
        first = e2e - decode if result.first_token_s is None else (result.first_token_s - result.sent_s) * 2.0
        e2e_s.append(e2e)
        ttft_s.append(first)
        normalised.append(e2e / result.output_tokens)
        waiting.append(max(first, result.max_token_gap_s * 2.0))
        if result.output_tokens > 1:
            tpot_s.append(decode / (result.output_tokens - 1))
    metrics = evaluate(run)
    for summary, values in (
        (metrics.e2e_s, e2e_s),
        (metrics.ttft_s, ttft_s),
        (metrics.tpot_s, tpot_s),
        (metrics.normalised_s_per_token, normalised),
        (metrics.max_waiting_s, waiting),
    ):
        assert summary is not None
        assert summary.count == len(values)
        assert summary.mean == pytest.approx(np.mean(values))
        assert summary.p99 == pytest.approx(np.percentile(values, 99))
        assert summary.max == pytest.approx(max(values))
    assert metrics.preemptions == sum(result.preemptions for result in run.results)


def test_a_run_and_its_columns_give_one_report(runs: list[Run]) -> None:
    assert to_json(build_report(runs)) == to_json(build_report([as_columns(run) for run in runs]))
    assert to_json(build_report([runs[0], as_columns(runs[1])])) == to_json(build_report(runs))


def test_runs_in_another_order_compare_request_by_request(runs: list[Run]) -> None:
    fcfs, other = runs
    in_order = Run(other.header, tuple(sorted(other.results, key=lambda result: result.id)))
    assert compare(fcfs, in_order).common == compare(fcfs, other).common
    ratio = compare(fcfs, in_order).improvement_ratio
    assert ratio is not None
    assert ratio == pytest.approx(compare(fcfs, other).improvement_ratio)


def test_files_of_both_formats_read_as_the_same_columns(runs: list[Run], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra simulate: pip install 'rankserve[simulate]'")
    from rankserve.records.result_columns import write_run_columns

    run = runs[0]
    values = {field.name: [getattr(r, field.name) for r in run.results] for field in fields(ResultRecord)}
    write_run_columns(tmp_path / "run.parquet", run.header, values)
    write_run(tmp_path / "run.jsonl", run.header, run.results)
    from_parquet, from_jsonl = (read_columns(tmp_path / f"run.{suffix}") for suffix in ("parquet", "jsonl"))
    assert from_parquet.header == from_jsonl.header
    for field in fields(from_parquet.results):
        ours, theirs = getattr(from_parquet.results, field.name), getattr(from_jsonl.results, field.name)
        assert ours.dtype.kind == theirs.dtype.kind
        np.testing.assert_array_equal(ours, theirs)
    assert json.dumps(to_json(build_report([from_parquet]))) == json.dumps(to_json(build_report([run])))


def test_a_million_dots_are_not_drawn(make_run: MakeRun, tmp_path: Path) -> None:
    from rankserve.client.evaluation import write_report
    from rankserve.client.evaluation.plots import MAX_CURVE_POINTS, latency_cdf

    run = as_columns(make_run("fcfs", [10, 2, 1]))
    many = run.take(np.arange(200_000) % 3)
    many = replace(many, results=replace(many.results, id=np.arange(200_000).astype(str)))
    report = write_report(tmp_path / "report.md", [many])
    svg = latency_cdf(report)
    assert svg is not None
    assert len(svg) < 60 * MAX_CURVE_POINTS
