"""`rankserve demo` on runs that went wrong; the whole of it runs in `make demo`."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("scipy", reason="needs the extra load: pip install 'rankserve[load]'")
pytest.importorskip("structlog", reason="needs the extra server: pip install 'rankserve[server]'")

from rankserve.cli import policy_runs
from rankserve.cli.demo import POLICIES
from rankserve.cli.main import app
from rankserve.client.testing import FakeServer
from rankserve.records.results import ResultRecord, Run, RunHeader


@pytest.fixture
def _nothing_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without a ratio and without a tau."""
    results = tuple(ResultRecord(str(n), "deadline_exceeded", sent_s=0.0, end_s=1.0) for n in range(20))
    runs = [Run(RunHeader(policy, "simulated"), results) for policy in POLICIES]
    monkeypatch.setattr(policy_runs, "run_policies", lambda *_, **__: runs)


def demo(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["demo", "--output", str(folder / "report.html"), *arguments])


def test_each_policys_load_is_told_in_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def server(options: Mapping[str, object]) -> Iterator[str]:
        with FakeServer() as fake:
            fake.policy = str(options["policy"])
            yield fake.target

    monkeypatch.setattr(policy_runs, "running_server", server)
    shown = demo(tmp_path, "--requests", "20", "--rate", "5000", "--json")
    assert json.loads(shown.stdout)["problems"] == []
    for policy in POLICIES:
        assert f"Z load under {policy}: 20 requests in " in shown.stderr
    assert f"Z all policies: {len(POLICIES)} policies in " in shown.stderr


@pytest.mark.usefixtures("_nothing_finished")
def test_figures_that_there_are_not_are_dashes(tmp_path: Path) -> None:
    shown = demo(tmp_path)
    assert shown.exit_code == 1
    assert "  ranking         –, –, –" in shown.stdout
    assert "Kendall's tau –, ceiling –" in shown.stdout
    assert "ranking: 20 requests failed" in shown.stderr


@pytest.mark.usefixtures("_nothing_finished")
def test_figures_that_there_are_not_are_null(tmp_path: Path) -> None:
    shown = demo(tmp_path, "--json")
    assert shown.exit_code == 1
    figures = json.loads(shown.stdout)
    assert figures["improvement_ratio"] is figures["improvement_ratio_p99"] is figures["kendall_tau"] is None
    assert len(figures["problems"]) == len(POLICIES)
