import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

from rankserve.cli.main import app
from rankserve.cli.models import models_app
from rankserve.records.active_pointer import read_active
from rankserve.records.ranker_version import MODEL

from .conftest import WriteRun


@pytest.fixture(scope="module")
def repository(
    tmp_path_factory: pytest.TempPathFactory,
    write_run: WriteRun,
    lengths: list[list[int]],
    graph: onnx.ModelProto,
) -> Path:
    """Version 1, active, and version 2, damaged."""
    folder = tmp_path_factory.mktemp("cli")
    run = write_run(folder / "run", lengths)
    arguments = [
        "export",
        str(run),
        "--repository",
        str(folder / "models"),
        "--name",
        "tiny",
        "--precision",
        "fp32",
    ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rankserve.exporter.export.export_graph", lambda model, max_length: graph)
        first = CliRunner().invoke(app, [*arguments, "--json"])
        second = CliRunner().invoke(app, arguments)

    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
    result = json.loads(first.stdout)
    assert (result["name"], result["version"], result["active"]) == ("tiny", 1, "tiny/1")
    assert result["activated"] is True
    assert result["metrics"]["kendall_tau"] > 0.3
    assert "matches torch" in first.stderr
    assert "Z publishing starts\n" in first.stderr
    assert "Z publishing: done in " in first.stderr
    assert result["coverage"]["prompts"] == 160
    assert "Expected lengths: p50 covers " in second.stdout
    assert "Published tiny/2 (fp32" in second.stdout
    assert "still tiny/1" in second.stdout
    model = folder / "models" / "tiny" / "2" / MODEL
    model.write_bytes(model.read_bytes()[:100])
    return folder / "models"


@pytest.mark.usefixtures("exported_once")
def test_refusal_exits_1_with_the_figures(
    tmp_path: Path, write_run: WriteRun, lengths: list[list[int]]
) -> None:
    run = write_run(tmp_path / "run", lengths)

    result = CliRunner().invoke(
        app, ["export", str(run), "-r", str(tmp_path / "m"), "-n", "tiny", "--minimum-tau", "0.99"]
    )

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "error: Kendall's tau is 0." in result.stderr
    assert not (tmp_path / "m").exists()


def test_list_shows_versions_and_what_is_wrong_with_them(repository: Path) -> None:
    result = CliRunner().invoke(models_app, ["list", "--repository", str(repository), "--json"])

    listing = json.loads(result.stdout)
    assert listing["active"] == "tiny/1"
    good, bad = listing["versions"]
    assert (good["name"], good["version"], good["active"], good["problem"]) == ("tiny", 1, True, "")
    assert good["precision"] == "fp32"
    assert good["kendall_tau"] > 0.3
    assert (bad["version"], bad["active"]) == (2, False)
    assert "model.onnx is damaged" in bad["problem"]

    text = CliRunner().invoke(models_app, ["list", "--repository", str(repository)]).stdout
    assert "* tiny/1  fp32  tau 0." in text
    assert "  tiny/2  " in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny"], "model.onnx is damaged"),
        (["tiny", "2"], "model.onnx is damaged"),
        (["tiny", "9"], "holds no tiny/9"),
        (["none"], "holds no ranker 'none'"),
    ],
)
def test_unusable_versions_are_not_activated(repository: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(models_app, ["activate", *arguments, "--repository", str(repository)])

    assert result.exit_code == 1
    assert message in result.stderr
    assert read_active(repository) == ("tiny", 1)


def test_activate_moves_the_pointer(repository: Path) -> None:
    (repository / "active.json").unlink()

    result = CliRunner().invoke(models_app, ["activate", "tiny", "1", "--repository", str(repository)])

    assert (result.exit_code, result.stdout) == (0, "tiny/1 is active\n")
    assert read_active(repository) == ("tiny", 1)


def test_models_needs_no_extra(repository: Path) -> None:
    code = (
        "import sys\n"
        "from rankserve.cli.models import models_app\n"
        f"models_app(['list', '--repository', {str(repository)!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
