"""`rankserve simulate`: end to end on small workloads."""

import csv
import gzip
import inspect
import json
import time
from dataclasses import MISSING, fields
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("scipy", reason="needs the extra load: pip install 'rankserve[load]'")
pytest.importorskip("structlog", reason="needs the extra server: pip install 'rankserve[server]'")
pytest.importorskip("pyarrow", reason="needs the extra simulate: pip install 'rankserve[simulate]'")

import numpy as np

from rankserve.cli import simulate as command_line
from rankserve.cli.main import app
from rankserve.cli.simulation import command, runs
from rankserve.cli.simulation.command import SimulateOptions
from rankserve.cli.simulation.figures import estimate
from rankserve.cli.simulation.requests import draw_requests
from rankserve.cli.simulation.results import queue_depth
from rankserve.cli.simulation.workload import from_trace
from rankserve.client.evaluation import ColumnarRun, RunMetrics, build_report, evaluate, read_columns
from rankserve.client.load import Burst
from rankserve.progress import stage
from rankserve.records.jsonl import write_jsonl
from rankserve.records.results import read_run
from rankserve.server.engines.simulated.profiles import find_profile
from rankserve.server.scheduling.policies import BUILT_IN, Policy
from rankserve.server.scheduling.request import Request
from rankserve.server.settings_table import SETTINGS
from rankserve.server.simulation.setup import SimulationSettings

TIGHT = ("--max-sequences", 4)


def simulate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)])


def figures(*arguments: object) -> dict[str, Any]:
    result = simulate(*arguments, "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """80 requests within 8 s, far more than four sequences at a time serve."""
    draw = np.random.default_rng(0)
    path = tmp_path / "trace.csv.gz"
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arrival_s", "input_tokens", "output_tokens"])
        for row in range(80):
            writer.writerow([round(row / 10, 3), draw.integers(1, 400), draw.integers(1, 300)])
    return path


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    records = [
        {"id": f"p{n}", "prompt": f"Tell me {n} things about the sea.", "lengths": [9 * n + 5, 9 * n + 7]}
        for n in range(40)
    ]
    write_jsonl(path, records)
    return path


def of(document: dict[str, Any], policy: str) -> dict[str, Any]:
    (run,) = (run for run in document["runs"] if run["policy"] == policy)
    return dict(run)


def test_policies_are_compared_on_a_trace(trace: Path) -> None:
    document = figures("-w", trace, "-p", "fcfs", "-p", "ranking", "-p", "sjf", "--score-tau", 0.6, *TIGHT)
    assert document["requests"] == 80
    assert [run["policy"] for run in document["runs"]] == ["fcfs", "ranking", "sjf"]
    fcfs, ranking, sjf = document["runs"]
    assert fcfs["finished"] == 80
    assert "improvement_ratio" not in fcfs
    assert sjf["improvement_ratio"] > ranking["improvement_ratio"] > 1
    assert ranking["kendall_tau"] == pytest.approx(0.6, abs=0.01)
    assert sjf["improvement_ratio"] == pytest.approx(fcfs["e2e_s"]["mean"] / sjf["e2e_s"]["mean"])
    for run in document["runs"]:
        assert run["header"]["arrivals"] == {"process": "recorded", "speed": 1.0}
        assert run["header"]["max_sequences"] == 4
        assert run["header"]["settings"] == {"score_tau": 0.6}
        assert 0 < run["kv_use_mean"] <= run["kv_use_max"] <= 1
        assert run["steps"] > 0
        assert run["queue_depth_max"] > 4
    estimates = document["policies"]["ranking"]
    assert estimates["e2e_s.p99"] == {"mean": ranking["e2e_s"]["p99"], "half_width": None}


def test_prompts_are_scored_by_the_bundled_ranker(prompts: Path) -> None:
    document = figures("-w", prompts, "--burst", *TIGHT)
    assert [run["policy"] for run in document["runs"]] == ["fcfs", "bounded_ranking", "sjf"]
    run = of(document, "bounded_ranking")
    assert run["header"]["ranker_version"]
    assert run["kendall_tau"] is not None
    # Of two samples the last is replayed, the other gives the ceiling.
    assert run["kendall_tau_ceiling"] == pytest.approx(1.0)


@pytest.mark.parametrize("policy", sorted(BUILT_IN))
def test_every_policy_serves_every_request(policy: str, prompts: Path) -> None:
    (run,) = figures("-w", prompts, "-p", policy, "--rate", 40, *TIGHT)["runs"]
    assert (run["policy"], run["finished"]) == (policy, 40)


def test_runs_of_several_seeds_are_estimates_with_intervals(trace: Path) -> None:
    options = ("-w", trace, "-p", "fcfs", "-p", "sjf", "--rate", 30, "--seed", 5, *TIGHT)
    document = figures(*options, "--seeds", 3)
    assert [(run["seed"], run["policy"]) for run in document["runs"]] == [
        (seed, policy) for seed in (5, 6, 7) for policy in ("fcfs", "sjf")
    ]
    ratios = [run["improvement_ratio"] for run in document["runs"] if run["policy"] == "sjf"]
    assert len(set(ratios)) == 3
    estimated = document["policies"]["sjf"]["improvement_ratio"]
    assert estimated["mean"] == pytest.approx(np.mean(ratios))
    # Student's t with two degrees of freedom.
    assert estimated["half_width"] == pytest.approx(4.3027 * np.std(ratios, ddof=1) / 3**0.5, rel=1e-4)
    (alone,) = (run for run in figures(*options)["runs"] if run["policy"] == "sjf")
    assert alone["e2e_s"] == document["runs"][1]["e2e_s"]
    assert "±" in simulate(*options, "--seeds", 3).stdout


def test_replicas_share_the_requests_in_turn(trace: Path, tmp_path: Path) -> None:
    """Two engines with every other request each are two runs of half the trace."""
    (together,) = figures("-w", trace, "-p", "fcfs", "--replicas", 2, *TIGHT, "-o", tmp_path / "two")["runs"]
    assert together["finished"] == 80
    with gzip.open(trace, "rt") as file:
        head, *rows = file.readlines()
    halves = []
    for first in (0, 1):
        half = tmp_path / f"half{first}.csv"
        half.write_text("".join([head, *rows[first::2]]))
        halves += figures("-w", half, "-p", "fcfs", *TIGHT, "-o", tmp_path / f"half{first}")["runs"]
    assert together["steps"] == sum(half["steps"] for half in halves)
    assert together["header"]["replicas"] == 2
    both = read_columns(Path(together["file"])).results
    for first, half in enumerate(halves):
        results = read_columns(Path(half["file"])).results
        np.testing.assert_allclose(both.end_s[first::2], results.end_s)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "jsonl.gz"])
def test_result_files_give_the_figures_that_were_printed(trace: Path, tmp_path: Path, suffix: str) -> None:
    options = ("-w", trace, "-p", "fcfs", "-p", "ranking", "--score-tau", 0.5, *TIGHT)
    document = figures(*options, "-o", tmp_path / "runs", "--format", suffix)
    files = [Path(run["file"]) for run in document["runs"]]
    assert [path.name for path in files] == [f"fcfs-seed0.{suffix}", f"ranking-seed0.{suffix}"]
    report = build_report([read_columns(path) for path in files])
    for column, run in zip(report.columns, document["runs"], strict=True):
        for name, value in column.metrics.to_json().items():
            assert run[name] == pytest.approx(value), name
    assert report.columns[1].comparison is not None
    ratio = document["runs"][1]["improvement_ratio"]
    assert report.columns[1].comparison.improvement_ratio == pytest.approx(ratio)
    assert report.warnings == ()
    result = CliRunner().invoke(app, ["report", *map(str, files)])
    assert result.exit_code == 0
    assert "KV use, mean" in result.stdout
    records = read_run(files[0]).results
    assert [record.id for record in records] == [str(row) for row in range(1, 81)]
    assert all(record.server_scheduled_s <= record.server_first_token_s for record in records)


def test_what_the_model_is_too_short_for_is_refused_as_a_server_would(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n0,100,10\n1,9000,10\n2,100,8150\n3,100,20\n")
    result = simulate("-w", path, "-p", "fcfs", "-o", tmp_path, "--json")
    assert result.exit_code == 0
    (run,) = json.loads(result.stdout)["runs"]
    assert run["failures"] == {"invalid_argument": 2}
    assert (run["requests"], run["finished"]) == (4, 2)
    assert "2 of 4 requests are longer than the 8192 tokens" in result.stderr
    refused = read_run(tmp_path / "fcfs-seed0.parquet").results[1]
    assert (refused.outcome, refused.end_s, refused.first_token_s) == ("invalid_argument", 1.0, None)
    assert "max_model_len" in refused.error
    path.write_text("arrival_s,input_tokens,output_tokens\n1,9000,10\n")
    result = simulate("-w", path, "-p", "fcfs")
    assert result.exit_code == 1
    assert "no request fits into a100-llama3-8b" in result.stderr


def test_recorded_answers_are_cut_at_max_tokens(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    record = {"prompt": "Sing.", "output_tokens": 500, "max_tokens": 20, "arrival_s": 0.0, "input_tokens": 7}
    write_jsonl(path, [record])
    simulate("-w", path, "-p", "fcfs", "-o", tmp_path, "--format", "jsonl")
    (result,) = read_run(tmp_path / "fcfs-seed0.jsonl").results
    assert (result.input_tokens, result.output_tokens, result.prompt_chars) == (7, 20, 5)


def test_a_workload_is_repeated_end_to_end(trace: Path, tmp_path: Path) -> None:
    (run,) = figures("-w", trace, "-p", "fcfs", "--repeat-to", 200, "-o", tmp_path)["runs"]
    results = read_columns(Path(run["file"])).results
    assert list(results.id[[0, 79, 80, 160]]) == ["1", "80", "1.2", "1.3"]
    # 79 gaps of 0.1 s and one more before it starts again.
    np.testing.assert_allclose(np.diff(results.sent_s), 0.1)
    assert results.output_tokens[80] == results.output_tokens[0]


def test_out_of_order_arrivals_are_sorted(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens,note\n5,10,3,b\n1,10,4,a\n")
    (run,) = figures("-w", path, "-p", "fcfs", "-o", tmp_path)["runs"]
    results = read_columns(Path(run["file"])).results
    assert (list(results.id), list(results.sent_s), list(results.output_tokens)) == (
        ["2", "1"],
        [1.0, 5.0],
        [4, 3],
    )


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        (("--max-wait-ms", 500), {"max_wait_s": 0.5}),
        (("--starvation-threshold-steps", 50), {"threshold_steps": 50}),
        (("--preemption", "recompute"), {"preemption": "recompute"}),
        (
            ("--preemption", "swap", "--preemption-margin", 2),
            {"preemption": "swap", "preemption_margin": 2.0},
        ),
        (("--kv-reservation", "predicted"), {"kv_reservation": "predicted"}),
        (("--no-fair-share",), {"fair_share": False}),
        (("--gather-ms", 50), {"gather_s": 0.05}),
    ],
)
def test_settings_reach_the_scheduler_and_the_record(
    trace: Path, options: tuple[object, ...], differs: dict[str, object]
) -> None:
    document = figures("-w", trace, "-p", "ranking", "--score-tau", 0.9, *TIGHT, *options)
    (run,) = document["runs"]
    assert run["header"]["settings"] == {**differs, "score_tau": 0.9}
    if "max_wait_s" in differs or "threshold_steps" in differs:
        assert run["promoted"] > 0
    if differs.get("preemption") == "recompute":
        assert run["preemptions"] > 0


class LongestPromptFirst(Policy):
    """A policy that the compiled simulation cannot know: `prefers` is its own."""

    name = "longest_prompt"

    def key(self, request: Request) -> float:
        return -request.prompt_tokens

    def prefers(self, head: Request, victim: Request, cost_tokens: float) -> bool:
        return head.prompt_tokens > victim.prompt_tokens


def test_an_unknown_policy_runs_step_by_step(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "make_policy", lambda name: LongestPromptFirst())
    result = simulate("-w", trace, "-p", "longest_prompt", "--score-tau", 0.5, *TIGHT, "--json")
    assert result.exit_code == 0, result.output
    assert "longest_prompt: not known to the compiled simulation, runs step by step" in result.stderr
    assert json.loads(result.stdout)["runs"][0]["finished"] == 80


def test_without_numba_all_runs_step_by_step(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("-w", trace, "-p", "fcfs", "-p", "sjf", *TIGHT)
    compiled = figures(*options)
    monkeypatch.setattr(command, "COMPILED", False)
    monkeypatch.setattr(runs, "COMPILED", False)
    result = simulate(*options, "--json")
    assert result.stderr.count("pip install 'rankserve[simulate]'") == 1
    stepwise = json.loads(result.stdout)
    for ours, theirs in zip(stepwise["runs"], compiled["runs"], strict=True):
        assert ours["e2e_s"] == pytest.approx(theirs["e2e_s"])
        assert ours["steps"] == theirs["steps"]


def test_a_trace_without_scores_drops_the_default_policy_that_needs_them(trace: Path) -> None:
    result = simulate("-w", trace, *TIGHT, "--json")
    assert [run["policy"] for run in json.loads(result.stdout)["runs"]] == ["fcfs", "sjf"]
    assert "--score-tau" in result.stderr


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ((), "either --workload FILE or --synthetic N"),
        (("-w", "{trace}", "--synthetic", 5), "either --workload FILE or --synthetic N"),
        (("-w", "{trace}", "-p", "ranking"), "--score-tau 0.5"),
        (
            ("-w", "{trace}", "-p", "fcfs", "--kv-reservation", "predicted"),
            "--kv-reservation predicted needs",
        ),
        (("-w", "{trace}", "-p", "fcfs", "-p", "fcfs"), "same --policy is given twice"),
        (("-w", "{trace}", "-p", "fcfs", "--seeds", 2), "nothing is drawn"),
        (("-w", "{trace}", "-p", "fcfs", "--rate", 1, "--burst"), "either --rate or --burst"),
        (("-w", "{trace}", "-p", "fcfs", "--gamma-cv", 2), "--gamma-cv needs --rate"),
        (("-w", "{trace}", "-p", "fcfs", "--repeat-to", 5), "--requests 5 takes the first"),
    ],
)
def test_unclear_orders_are_usage_errors(trace: Path, options: tuple[object, ...], problem: str) -> None:
    result = simulate(*(str(option).format(trace=trace) for option in options))
    assert result.exit_code == 2
    assert problem in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("-p", "longest"), "unknown policy 'longest'; there are: aged_ranking"),
        (("-p", "fcfs", "--profile", "b200"), "unknown profile 'b200'"),
        (("-p", "fcfs", "--rate", -1), "above 0"),
        (("-p", "fcfs", "--on-off", "60"), "RATE:SECONDS,RATE:SECONDS"),
        (("-p", "fcfs", "--max-batched-tokens", 2), "max_batched_tokens (2)"),
    ],
)
def test_what_cannot_be_is_said(trace: Path, options: tuple[object, ...], problem: str) -> None:
    result = simulate("-w", trace, *options)
    assert result.exit_code == 1
    assert problem in result.stderr


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("arrival_s,input_tokens\n1,2\n", 1, "no column output_tokens"),
        ("1.5,20,30\n", 1, "no column arrival_s, input_tokens, output_tokens"),
        ("arrival_s,input_tokens,output_tokens\n1,2,3\n2,5,many\n", 3, "output_tokens must be an integer"),
        (
            "arrival_s,input_tokens,output_tokens\n1,2,3\n2,5,0\n",
            3,
            "output_tokens must be an integer from 1",
        ),
        ("arrival_s,input_tokens,output_tokens\nsoon,2,3\n", 2, "arrival_s must be a number"),
        ("arrival_s,input_tokens,output_tokens\n1,2,3\nnan,2,3\n", 3, "arrival_s must be a number"),
        ("arrival_s,input_tokens,output_tokens\n1,2,3\n-1,2,3\n", 3, "arrival_s must be a number"),
        ("arrival_s,input_tokens,output_tokens\n1,2,3\n1,,3\n", 3, "input_tokens must be an integer"),
        ("arrival_s,input_tokens,output_tokens\n1,2,3\n1,2\n", 3, "output_tokens must be an integer"),
        ("arrival_s,input_tokens,output_tokens\n", 0, "holds no request"),
        ("", 1, "no column"),
    ],
)
def test_a_bad_line_of_a_trace_is_named(tmp_path: Path, text: str, line: int, problem: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    result = simulate("-w", path, "-p", "fcfs")
    assert result.exit_code == 1
    assert f"{path}:{line}: " in result.stderr if line else f"{path}: " in result.stderr
    assert problem in result.stderr


def test_a_trace_that_is_no_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(b"arrival_s,input_tokens,output_tokens\n1,2,3\n")
    result = simulate("-w", path, "-p", "fcfs")
    assert result.exit_code == 1
    assert f"{path}: " in result.stderr
    assert "Traceback" not in result.stderr


def test_a_workload_without_lengths_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    write_jsonl(path, [{"id": "a", "prompt": "Hello"}])
    result = simulate("-w", path, "--burst")
    assert result.exit_code == 1
    assert "record 'a' states no answer length" in result.stderr


def test_the_first_lines_alone_are_read(trace: Path) -> None:
    assert figures("-w", trace, "-p", "fcfs", "-n", 7)["requests"] == 7


def test_the_table_names_every_figure(trace: Path) -> None:
    shown = simulate("-w", trace, "-p", "fcfs", "-p", "sjf", *TIGHT).stdout
    for latency in ("E2E latency, s", "TTFT, s", "TPOT, s", "Normalised, s/token", "Max waiting, s"):
        for statistic in ("mean", "p50", "p90", "p99", "max"):
            assert f"{latency}, {statistic}" in shown
    assert "batch cap 4 sequences" in shown
    assert "KV use, mean" in shown
    assert "Queue depth, max" in shown


def test_options_are_those_of_serve_where_they_mean_the_same() -> None:
    ours = inspect.signature(command_line.simulate).parameters
    shared = ours.keys() & SETTINGS.keys() - {"policy"}
    assert {"max_wait_ms", "preemption", "kv_reservation", "kv_blocks", "ranker_threads"} <= shared
    assert {name: ours[name].default for name in shared} == {name: SETTINGS[name].default for name in shared}
    fields_of = {field.name: field.default for field in fields(SimulateOptions)}
    for name, default in fields_of.items():
        name = "file_format" if name == "format" else name
        assert name in ours
        assert default is MISSING or ours[name].default == default


def test_an_estimate_needs_the_figure_of_every_seed() -> None:
    assert estimate([1.0, None]) is None
    assert estimate([]) is None
    single = estimate([2.0])
    assert single is not None
    assert (single.mean, single.half_width) == (2.0, None)


def test_queue_depth_by_hand() -> None:
    """Three arrive at 0, one at 6; they start at 0, 4, 8 and 10 s: 2, 1, 2, 1 wait for 4, 2, 2, 2 s."""
    samples = queue_depth(np.array([0.0, 0, 0, 6]), np.array([0.0, 4, 8, 10]))
    depths = [depth for _, depth in samples]
    assert max(depths) == 3
    assert sum(depths) / len(depths) == pytest.approx((2 * 4 + 1 * 2 + 2 * 2 + 1 * 2) / 10, abs=0.01)


def test_runs_take_no_more_memory_the_more_there_are(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulations are begun only as their results are taken."""
    begun, taken = [], []
    original = runs._simulate

    def counted(*arguments: Any) -> Any:
        begun.append(arguments)
        return original(*arguments)

    def noted(run: ColumnarRun) -> RunMetrics:
        taken.append(len(begun))
        return evaluate(run)

    monkeypatch.setattr(runs, "_simulate", counted)
    monkeypatch.setattr(runs, "available_cores", lambda: 2)
    monkeypatch.setattr(command, "evaluate", noted)
    figures("-w", trace, "-p", "fcfs", "--rate", 30, "--seeds", 12, *TIGHT)
    assert len(taken) == 12
    assert all(count <= place + 1 + 2 for place, count in enumerate(taken))


def test_how_far_all_simulations_are_together() -> None:
    with stage("simulating", 200, "requests") as simulating:
        report = command.counting(simulating)
        for simulation, arrived in ((0, 50), (1, 50), (0, 80)):
            report(simulation, arrived)
    assert simulating.done == 130


def test_progress_is_told_in_a_log(tmp_path: Path) -> None:
    result = simulate("--synthetic", 40, "--rate", 30, "-p", "fcfs", "-p", "ranking", "--json")
    lines = result.stderr.splitlines()
    assert json.loads(result.stdout)["requests"] == 40
    assert any("Z simulating starts, 80 requests" in line for line in lines), result.stderr
    assert any("Z simulating: 80 requests in" in line for line in lines), result.stderr
    assert any("Z scoring with " in line and "prompts in" in line for line in lines), result.stderr


def test_whoever_has_enough_stops_what_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C does: the second simulation is told to stop as soon as it next reports."""
    first_taken, stopped = Event(), Event()

    def long_simulation(simulation: Any, policy: Policy, part: Any, report: Any) -> Any:
        if policy.name == "fcfs":
            return original(simulation, policy, part, report)
        first_taken.wait(timeout=60)
        try:
            while True:
                report(1)
                time.sleep(0.001)
        finally:
            stopped.set()

    original = runs._simulate
    monkeypatch.setattr(runs, "_simulate", long_simulation)
    monkeypatch.setattr(runs, "available_cores", lambda: 2)
    workload = from_trace(np.zeros(3), np.full(3, 10), np.full(3, 5))
    policies = (BUILT_IN["fcfs"](), BUILT_IN["sjf"](), BUILT_IN["mlfq"]())
    simulation = runs.Simulation(policies, find_profile("a100-llama3-8b"), SimulationSettings())
    requests = draw_requests(workload, Burst(), None, simulation.profile, 0)
    simulated = runs.run_all(simulation, [requests], lambda *_: None)
    assert next(simulated).header.policy == "fcfs"
    first_taken.set()
    simulated.close()
    assert stopped.is_set()
