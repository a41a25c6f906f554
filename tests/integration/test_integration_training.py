"""Training in real processes: several at once, killed and interrupted ones."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

TESTS = Path(__file__).resolve().parents[1]

# Everything that a resumed run has to restore, and that several processes have to agree on.
CONFIG = """
name = "tiny"
seed = 3
[[sources]]
kind = "synthetic"
name = "main"
licence = "Apache-2.0"
count = 300
[[sources]]
kind = "synthetic"
name = "other"
licence = "Apache-2.0"
count = 100
seed = 4
auxiliary = true
[model]
max_length = 48
separate_heads = true
DROPOUT
[model.mini]
layers = 1
hidden_size = 32
heads = 2
vocabulary = 400
[optimisation]
list_size = 8
lists_per_step = 2
epochs = 3
learning_rate = 5e-3
evaluations_per_epoch = 3
patience = 5
ema_decay = 0.9
"""


def run(*command: str, seconds: float = 280) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def torchrun(processes: int, *command: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return run(
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)),
        *("--master-addr", "127.0.0.1", "--master-port", str(port), *command),
    )


def outcome(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    del metrics["training"]["seconds"], metrics["training"]["processes"]
    # The same, but a resumed run remembers it and another one timed it.
    metrics["training"]["precision"] = metrics["training"]["precision"]["used"]
    return metrics


def flat(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {name: leaf for inner in value for name, leaf in flat(value[inner], f"{key}.{inner}").items()}
    if isinstance(value, list):
        return {
            name: leaf for i, inner in enumerate(value) for name, leaf in flat(inner, f"{key}.{i}").items()
        }
    return {key: value}


def test_a_list_over_three_processes_has_the_loss_and_gradient_of_one() -> None:
    lines = torchrun(3, "-m", "support.shared_lists").stdout.splitlines()
    reports = [json.loads(line) for line in lines]
    assert [report["prompts"] for report in reports] == [3, 2, 7, 40]
    for report in reports:
        assert report["loss"] < 1e-5
        assert report["gradient"] < 1e-5 < 0.01 < report["largest"]


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG.replace("DROPOUT", "dropout = 0.0"))
    rankserve = str(Path(sys.executable).with_name("rankserve"))
    arguments = ("train", "--config", str(config), "--json", "--output")
    trained = torchrun(2, rankserve, *arguments, str(tmp_path / "two"))
    assert json.loads(trained.stdout)["training"]["processes"] == 2
    assert trained.stderr.count("Z training starts, ") == 1, "only the first process reports"
    run(rankserve, *arguments, str(tmp_path / "one"))
    assert flat(outcome(tmp_path / "two")) == pytest.approx(flat(outcome(tmp_path / "one")), abs=1e-5)
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    # Not biases: those that shift all scores alike have no gradient but rounding, which Adam makes steps of.
    for name, weight in one.items():
        if weight.ndim > 1:
            torch.testing.assert_close(two[name], weight, atol=1e-5, rtol=0)


def test_a_training_that_is_killed_again_and_again_ends_like_one_that_is_not(tmp_path: Path) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG.replace("DROPOUT", "dropout = 0.1"))
    done = run(sys.executable, "-m", "support.killed_training", str(config), str(tmp_path), "1")
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert any(kill["broken"] for kill in kills), "none was killed while it wrote a checkpoint"
    assert len({kill["to"] for kill in kills}) > 2, "none was killed between checkpoints"
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    killed, whole = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("killed", "whole")
    )
    assert killed.keys() == whole.keys()
    assert all(torch.equal(killed[name], whole[name]) for name in whole)


def test_ctrl_c_ends_a_training_and_tells_how_to_go_on(tmp_path: Path) -> None:
    config, output = tmp_path / "tiny.toml", tmp_path / "run"
    config.write_text(CONFIG.replace("DROPOUT", "dropout = 0.1"))
    # A shell's background jobs, which this test may be part of, ignore the signal.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from rankserve.cli.main import app; app()"
    )
    arguments = ("train", "--config", str(config), "--output", str(output))
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        lines = list[str]()
        for line in process.stderr:
            lines.append(line)
            if "validation tau" in line:
                os.kill(process.pid, signal.SIGINT)
                break
        lines.extend(process.stderr)
        assert process.wait(timeout=60) == 130, "".join(lines)
    assert lines[-1] == "interrupted: the same command with --resume continues the run\n"
    assert not [line for line in lines if "Traceback" in line]
    assert (output / "config.json").exists(), "which --resume needs"
    assert not (output / "run.json").exists()
