"""`rankserve models`: every command says what it did, to people and to programs, and fails with status 1."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("onnxruntime", reason="needs the extra server: pip install 'rankserve[server]'")
pytest.importorskip("onnx", reason="the toy ranker is built with onnx: pip install 'rankserve[exporter]'")

from support.damage import DAMAGES
from support.schema_1 import publish_schema_1
from support.toy_ranker import publish

from rankserve.cli.main import app
from rankserve.cli.models import models_app
from rankserve.records.active_pointer import read_active
from rankserve.records.ranker_version import Coverage, Probe, version_numbers

PROBES = (Probe("one two", -3.0), Probe("write a long story", -5.0))
COMMANDS = ("list", "show", "verify", "activate", "rollback", "prune")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """toy/1 to toy/4 with probes, toy/4 with coverage too; old/1 of an older release. None is active."""
    coverage = Coverage(100, 400, 2, 0.51, 0.89, (0.4, 0.6), (0.85, 0.93))
    for version in (1, 2, 3):
        publish(tmp_path, "toy", version, max_length=64, probes=PROBES)
    publish(tmp_path, "toy", 4, max_length=64, probes=PROBES, coverage=coverage, optimization="O2")
    publish_schema_1(tmp_path, "old", 1)
    return tmp_path


def models(repository: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["models", *map(str, arguments), "--repository", str(repository)])


def as_json(repository: Path, *arguments: object) -> Any:
    result = models(repository, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(models_app, [command, "--help"])
    assert result.exit_code == 0
    assert "--repository" in result.output
    assert "--json" in result.output


def test_show_tells_all_that_the_manifest_holds(repository: Path) -> None:
    models(repository, "activate", "toy", 4)
    shown = models(repository, "show").stdout
    assert shown.startswith("toy/4 (active)")
    for expected in (
        "fp32, graph optimised to O2",
        "model.onnx",
        "200.0",
        "p50 covers 51.0%",
        "2 of them cut",
    ):
        assert expected in shown
    document = as_json(repository, "show", "toy", 4)
    assert document["active"] is True
    assert document["coverage"]["p90_by_score"] == [0.85, 0.93]
    assert document["probes"][0] == {"prompt": "one two", "score": -3.0}
    assert document["file_bytes"]["model.onnx"] > 0
    assert as_json(repository, "show", "toy/3")["version"] == 3
    assert as_json(repository, "show", "toy")["version"] == 4


def test_show_of_an_older_release_says_what_it_did_not_measure(repository: Path) -> None:
    shown = models(repository, "show", "old").stdout
    assert "coverage: not measured" in shown
    assert "kendall_tau" in shown


def test_show_of_a_damaged_version_shows_it_and_fails(repository: Path) -> None:
    (repository / "toy" / "2" / "model.onnx").write_bytes(b"")
    result = models(repository, "show", "toy", 2)
    assert result.exit_code == 1
    assert "toy" in result.stdout
    assert "model.onnx is damaged" in result.stderr


def test_verify_passes_what_reproduces_its_scores(repository: Path) -> None:
    result = as_json(repository, "verify")
    assert result["ok"] is True
    found = {f"{each['name']}/{each['version']}": each for each in result["versions"]}
    assert list(found) == ["old/1", "toy/1", "toy/2", "toy/3", "toy/4"]
    assert (found["toy/1"]["probes"], found["toy/1"]["max_difference"]) == (2, 0)
    assert found["old/1"]["max_difference"] is None
    assert found["toy/4"]["providers"] == ["CPUExecutionProvider"]
    text = models(repository, "verify", "toy", 2).stdout
    assert text == "toy/2  ok (2 recorded scores reproduced within 0.0e+00)\n"
    assert len(models(repository, "verify", "toy").stdout.splitlines()) == 4


def test_verify_fails_on_any_damage_and_checks_the_rest(repository: Path) -> None:
    for version, damage in enumerate(DAMAGES, start=1):
        damage(publish(repository, "damaged", version, max_length=64))
    result = models(repository, "verify")
    assert result.exit_code == 1
    assert "Z verifying: " in result.stderr
    lines = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    for version, says in enumerate(DAMAGES.values(), start=1):
        verdict = lines[f"damaged/{version}"]
        assert verdict.startswith("FAILED: ")
        assert says in verdict
    assert lines["toy/1"].startswith("ok")


def test_verify_notices_other_scores_than_recorded(repository: Path) -> None:
    publish(repository, "toy", 5, max_length=64, probes=(Probe("one", 7.0),))
    result = models(repository, "verify", "toy", 5, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ok"] is False
    assert "differ from those recorded at export by 9" in json.loads(result.stdout)["versions"][0]["problem"]


def test_rollback_returns_to_what_was_active_before(repository: Path) -> None:
    for version in (1, 3, 4):
        models(repository, "activate", "toy", version)
    assert models(repository, "rollback").stdout == "toy/3 is active, toy/4 was\n"
    assert as_json(repository, "rollback") == {"active": "toy/1", "before": "toy/3"}
    result = models(repository, "rollback")
    assert result.exit_code == 1
    assert "no version was active before; choose one with" in result.stderr
    assert read_active(repository) == ("toy", 1)


def test_rollback_to_a_damaged_version_changes_nothing(repository: Path) -> None:
    for version in (1, 2):
        models(repository, "activate", "toy", version)
    (repository / "toy" / "1" / "tokenizer.json").write_text("")
    result = models(repository, "rollback")
    assert result.exit_code == 1
    assert "cannot go back to toy/1" in result.stderr
    assert read_active(repository) == ("toy", 2)


def test_prune_says_first_and_then_does(repository: Path) -> None:
    models(repository, "activate", "toy", 1)
    dry = as_json(repository, "prune", "--keep", 1, "--dry-run")
    assert dry["removed"] == ["toy/2", "toy/3"]
    assert dry["freed_bytes"] > 0
    assert version_numbers(repository, "toy") == [1, 2, 3, 4]
    assert "would remove toy/2" in models(repository, "prune", "--keep", 1, "--dry-run").stdout
    assert as_json(repository, "prune", "--keep", 1) == {**dry, "dry_run": False}
    assert version_numbers(repository, "toy") == [1, 4]
    assert models(repository, "prune").stdout == "0 versions, 0.0 kB\n"


def test_prune_keeps_three_by_default(repository: Path) -> None:
    assert as_json(repository, "prune", "--name", "toy")["removed"] == ["toy/1"]


@pytest.mark.parametrize("as_json", [[], ["--json"]])
@pytest.mark.parametrize("command", ["list", "verify"])
def test_an_active_version_that_is_gone_is_an_error_for_people_and_programs(
    repository: Path, command: str, as_json: list[str]
) -> None:
    models(repository, "activate", "toy", 1)
    (repository / "toy" / "1").rename(repository / "elsewhere")
    result = models(repository, command, *as_json)
    assert result.exit_code == 1
    assert "toy/1 is not there; choose one with `rankserve models activate`" in result.stderr
    assert "toy" in result.stdout


def _break_pointer(repository: Path) -> None:
    (repository / "active.json").write_text("{")


def _empty(repository: Path) -> None:
    for name in ("toy", "old"):
        (repository / name).rename(repository / f".{name}")


@pytest.mark.parametrize(
    ("spoil", "arguments", "problem"),
    [
        (_break_pointer, ["list"], "`rankserve models activate` writes it anew"),
        (_break_pointer, ["show"], "active.json: unreadable"),
        (_break_pointer, ["verify"], "active.json: unreadable"),
        (_break_pointer, ["rollback"], "active.json: unreadable"),
        (_break_pointer, ["prune"], "active.json: unreadable"),
        (_empty, ["verify"], "holds no ranker version; `rankserve export` publishes one"),
        (_empty, ["activate", "toy"], "holds no ranker 'toy'"),
        (None, ["show"], "has no active version: name one"),
        (None, ["show", "toy", "9"], "holds no toy/9"),
        (None, ["show", "toy/x"], "'x' is no version of toy: give a number, as in toy/3"),
        (None, ["show", "toy/" + "9" * 5000], "is no version of toy"),
        (None, ["show", "../toy"], "'toy' is no version of .."),
        (None, ["verify", "nope"], "holds no ranker 'nope'"),
        (None, ["prune", "--name", "nope"], "holds no ranker 'nope'"),
    ],
)
def test_what_cannot_be_done_is_an_error_and_no_traceback(
    repository: Path, spoil: Callable[[Path], None] | None, arguments: list[str], problem: str
) -> None:
    if spoil is not None:
        spoil(repository)
    result = models(repository, *arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert problem in result.stderr
