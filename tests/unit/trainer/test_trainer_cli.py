import inspect
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rankserve.cli.main import app
from rankserve.cli.train import train
from rankserve.records.jsonl import write_jsonl
from rankserve.trainer.recipes import recipe_names
from rankserve.trainer.synthetic import generate

CONFIG = """
name = "tiny"
[[sources]]
kind = "file"
name = "mine"
licence = "MIT"
path = "prompts.jsonl.gz"
[model]
max_length = 32
[model.mini]
layers = 1
hidden_size = 16
heads = 2
vocabulary = 300
[optimisation]
epochs = 1
learning_rate = 5e-3
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_jsonl(
        tmp_path / "prompts.jsonl.gz",
        ({"prompt": record.prompt, "lengths": record.output_lengths} for record in generate(250, 0)),
    )
    path = tmp_path / "tiny.toml"
    path.write_text(CONFIG)
    return path


def test_train_then_evaluate(config: Path, tmp_path: Path) -> None:
    runner, run = CliRunner(), str(tmp_path / "run")
    trained = runner.invoke(app, ["train", "--config", str(config), "--output", run, "--seed", "5", "--json"])
    assert trained.exit_code == 0, trained.output
    document = json.loads(trained.stdout)
    assert document["run"] == run
    assert document["training"]["prompts"] < 250
    lines = trained.stderr.splitlines()
    for stage in ("reading mine", "tokenising mine", "training", "validating", "scoring test prompts"):
        assert any(f"Z {stage}" in line and " starts" in line for line in lines), trained.stderr
        assert any(f"Z {stage}" in line and "prompts in" in line for line in lines), trained.stderr
    assert any("validation tau" in line and "loss" in line for line in lines)
    assert "\r" not in trained.stderr
    assert "\x1b" not in trained.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["seed"] == 5

    again = runner.invoke(app, ["train", "--config", str(config), "--output", run])
    assert again.exit_code == 1
    assert "--resume" in again.stderr

    data = str(tmp_path / "prompts.jsonl.gz")
    judged = runner.invoke(app, ["evaluate", run, "--data", data, "--json"])
    assert judged.exit_code == 0, judged.output
    figures = json.loads(judged.stdout)
    assert figures["trained_on"] == document["training"]["prompts"]
    assert figures["prompts"] + figures["trained_on"] == 250
    assert "scoring: " in judged.stderr
    told = runner.invoke(app, ["evaluate", run, "--data", data])
    assert "ceiling" in told.stdout
    assert "left out" in told.stderr


def test_an_unreadable_line_is_named(config: Path) -> None:
    plain = config.with_name("prompts.jsonl")
    plain.write_text('{"prompt": "a", "output_tokens": 3}\n{"prompt": 7}\n')
    config.write_text(CONFIG.replace("prompts.jsonl.gz", "prompts.jsonl"))
    result = CliRunner().invoke(
        app, ["train", "--config", str(config), "--output", str(config.parent / "run")]
    )
    assert result.exit_code == 1
    assert f"{plain}:2: " in result.stderr
    assert not (config.parent / "run").exists()


def test_data_that_is_not_there_is_named_before_anything_is_read(config: Path) -> None:
    config.with_name("prompts.jsonl.gz").unlink()
    run = config.parent / "run"
    result = CliRunner().invoke(app, ["train", "--config", str(config), "--output", str(run)])
    assert result.exit_code == 1
    assert f"source 'mine': there is no file {config.with_name('prompts.jsonl.gz')}" in result.stderr
    assert not run.exists()


def test_a_config_that_is_neither_file_nor_recipe_says_which_recipes_there_are() -> None:
    result = CliRunner().invoke(app, ["train", "--config", "nonsense"])
    assert result.exit_code == 1
    assert "bundled" in result.stderr


def test_the_help_names_every_recipe() -> None:
    help_text = inspect.get_annotations(train)["config"].__metadata__[0].help
    assert [name for name in recipe_names() if name not in help_text] == []
