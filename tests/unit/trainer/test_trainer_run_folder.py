"""What a run may take for its own folder, and that it has it for itself."""

import json
from pathlib import Path

import pytest

from rankserve.records.jsonl import write_jsonl
from rankserve.trainer.config import TrainConfig, parse_config
from rankserve.trainer.training.run import train
from rankserve.trainer.training.run_folder import RunError, RunFolder


def config_for(folder: Path) -> TrainConfig:
    write_jsonl(
        folder / "data" / "lengths.jsonl",
        ({"prompt": f"number {i}", "output_tokens": i} for i in range(1, 80)),
    )
    source = {"kind": "file", "name": "own", "licence": "MIT", "path": "data/lengths.jsonl"}
    return parse_config({"name": "tiny", "sources": [source]}, origin=folder / "tiny.toml")


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_ones_own_data_is_left_alone(tmp_path: Path, resume: bool) -> None:
    config = config_for(tmp_path)
    with pytest.raises(RunError, match="replace what it has in data"):
        train(config, tmp_path, resume=resume)
    assert (tmp_path / "data" / "lengths.jsonl").is_file(), "the folder is called as the run's own"


def test_a_models_folder_is_no_run(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "opt"}))
    with pytest.raises(RunError, match="not of a run"):
        train(config, tmp_path, resume=True)


def test_what_a_killed_run_left_before_it_claimed_the_folder_is_taken_over(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.data.mkdir(parents=True)
    for name in (
        ".lock",
        "training.log",
        "config.tmp",
        "data/prompts-0.tmp",
        "data/rows-12.npz",
        "data/sources.json.tmp",
    ):
        (folder.path / name).touch()
    folder.check(config_for(tmp_path), resume=False)


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    folder = RunFolder(tmp_path / "run")
    (folder.checkpoints.path / "checkpoint-10").mkdir(parents=True)
    folder.begin(config, "", "fp32")
    with folder.held(), pytest.raises(RunError, match="another process trains"):
        train(config, folder.path, resume=True)
    assert (folder.checkpoints.path / "checkpoint-10").is_dir(), "which the other may be writing"
    with folder.held():
        pass
