"""`rankserve load` and `rankserve report`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rankserve.cli.main import app
from rankserve.client import ResourceExhausted
from rankserve.client.testing import FakeServer
from rankserve.records.jsonl import write_jsonl
from rankserve.records.results import read_run


def rankserve(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    path = tmp_path / "workload.jsonl"
    write_jsonl(path, ({"prompt": "x" * place, "lengths": [place + 2, place]} for place in range(1, 21)))
    return path


def test_load_writes_results_that_report_reads(server: FakeServer, workload: Path, tmp_path: Path) -> None:
    runs = [tmp_path / "one.jsonl", tmp_path / "two.jsonl.gz"]
    for path in runs:
        shown = rankserve("load", "--target", server.target, "-w", workload, "--rate", 2000, "--output", path)
        assert shown.exit_code == 0, shown.stderr
        assert "E2E latency, s" in shown.stdout
        assert "20 of 20 requests finished" in shown.stdout
        assert "Z load under fcfs starts, 20 requests\n" in shown.stderr
        assert "Z load under fcfs: 20 requests in " in shown.stderr
    run = read_run(runs[0])
    assert [result.output_tokens for result in run.results] == list(range(1, 21))
    assert run.results[0].other_lengths == (3,)
    assert run.header.workload == "workload.jsonl"

    page = tmp_path / "report.html"
    shown = rankserve("report", *runs, "--output", page, "--json")
    assert shown.exit_code == 0, shown.stderr
    assert json.loads(shown.stdout)["baseline"] == "fcfs #1"
    assert "Z reading results: 2 files in " in shown.stderr
    assert "Z comparing: done in " in shown.stderr
    assert "<svg" in page.read_text()


def test_json_is_one_object_on_stdout(server: FakeServer, workload: Path) -> None:
    shown = rankserve("load", "--target", server.target, "-w", workload, "--burst", "-n", 5, "--json")
    figures = json.loads(shown.stdout)
    assert (figures["requests"], figures["finished"]) == (5, 5)
    # The fake ranker takes short prompts first, and here these have the short answers.
    assert figures["kendall_tau"] == pytest.approx(1.0)
    assert figures["kendall_tau_ceiling"] == pytest.approx(1.0)
    assert figures["header"]["policy"] == "fcfs"


def test_generated_prompts_are_replayed_in_full(server: FakeServer) -> None:
    shown = rankserve("load", "--target", server.target, "--synthetic", 30, "--burst", "--seed", 3, "--json")
    assert shown.exit_code == 0, shown.stderr
    figures = json.loads(shown.stdout)
    assert figures["requests"] == 30
    assert figures["kendall_tau_ceiling"] is not None
    for request in server.requests:
        assert request.max_tokens is not None
        assert request.replay_output_tokens is not None
        assert request.max_tokens >= request.replay_output_tokens
    assert len({request.max_tokens for request in server.requests}) == 1


def test_failed_requests_fail_the_command_and_say_why(server: FakeServer, workload: Path) -> None:
    server.refuse(ResourceExhausted("the queue is full"))
    shown = rankserve("load", "--target", server.target, "-w", workload, "--burst")
    assert shown.exit_code == 1
    assert "0 of 20 requests finished, 20 resource_exhausted" in shown.stdout
    assert "resource_exhausted: the queue is full" in shown.stderr


def test_recorded_times_are_the_default(server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    write_jsonl(path, [{"prompt": "a", "arrival_s": 0.0}, {"prompt": "b", "arrival_s": 1.0}])
    shown = rankserve("load", "--target", server.target, "-w", path, "--speed", 100, "--json")
    assert json.loads(shown.stdout)["header"]["arrivals"]["process"] == "recorded"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "--workload FILE or --synthetic N"),
        (["--synthetic", "5"], "--rate R or --burst"),
        (["--synthetic", "5", "--rate", "1", "--burst"], "either --rate or --burst"),
    ],
)
def test_unclear_orders_are_usage_errors(arguments: list[str], problem: str) -> None:
    shown = rankserve("load", *arguments)
    assert shown.exit_code == 2
    assert problem in " ".join(shown.stderr.replace("│", " ").split())


def test_errors_name_the_line_or_the_server(server: FakeServer, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a"}\n{"prompt": ""}\n')
    shown = rankserve("load", "--target", server.target, "-w", bad, "--burst")
    assert shown.exit_code == 1
    assert f"{bad}:2:" in shown.stderr
    shown = rankserve("report", bad)
    assert shown.exit_code == 1
    assert "not a result file" in shown.stderr
    shown = rankserve("load", "--target", server.target, "--synthetic", 1, "--rate", -1)
    assert shown.exit_code == 1
    assert "above 0" in shown.stderr


@pytest.mark.parametrize("command", ["load --synthetic 1 --burst", f"report {__file__}"])
def test_a_missing_extra_says_what_to_install(command: str) -> None:
    code = (
        "import sys, typer\n"
        "sys.modules['scipy'] = None\n"
        "from rankserve.cli.load import load\n"
        "from rankserve.cli.report import report\n"
        "app = typer.Typer()\n"
        "app.command()(load)\n"
        "app.command()(report)\n"
        f"app({command.split()!r})\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.returncode == 1
    assert "pip install 'rankserve[load]'" in shown.stderr
    assert "Traceback" not in shown.stderr
