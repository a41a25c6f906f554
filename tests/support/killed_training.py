"""Trains to the end, then again while being killed, each time with `rankserve train --resume`.

Arguments: the config, a folder for the runs `whole` and `killed`, and a seed. Prints a JSON object for each
kill: at what, the newest whole checkpoint before and after, and whether one was being written. The processes
are forked off this one, which has imported everything, so that a start costs no seconds.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import rankserve.trainer.training.run
from rankserve.cli.main import app
from rankserve.trainer.training.run_folder import RunFolder

PLANS = ("reading", "writing", "training", "writing", "training", "finishing")


def start(config: str, output: Path) -> int:
    child = os.fork()
    if child:
        return child
    with contextlib.redirect_stderr(sys.stdout), output.with_suffix(".log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            app(["train", "--config", config, "--output", str(output), "--resume"])
        except SystemExit as stop:
            os._exit(int(stop.code or 0))
    os._exit(1)


def is_over(child: int) -> bool:
    return os.waitpid(child, os.WNOHANG)[0] != 0


def broken(folder: RunFolder) -> bool:
    """Whether a checkpoint is there that is not whole."""
    return any(not (path / "whole").exists() for path in folder.checkpoints.path.glob("checkpoint-*"))


def reached(plan: str, folder: RunFolder, before: Path | None) -> bool:
    if plan == "reading":
        return any(folder.data.glob("*.tmp"))
    if plan == "writing":
        return broken(folder)
    if plan == "training":
        return folder.checkpoints.last() != before
    return folder.model.exists()


def main(config: str, folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    folder.mkdir(exist_ok=True)
    _, status = os.waitpid(start(config, folder / "whole"), 0)
    if status:
        sys.exit((folder / "whole.log").read_text())
    run = RunFolder(folder / "killed")
    for plan in PLANS:
        run.checkpoints.remove_broken()
        before = run.checkpoints.last()
        child = start(config, run.path)
        while not reached(plan, run, before):
            time.sleep(0.0005)
            if is_over(child):
                sys.exit(f"{plan}: ended first\n" + run.path.with_suffix(".log").read_text())
        time.sleep(rng.uniform(0, 0.02) if plan in ("writing", "training") else 0)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        last = run.checkpoints.last()
        report = {
            "plan": plan,
            "from": before and before.name,
            "to": last and last.name,
            "broken": broken(run),
        }
        sys.stdout.write(json.dumps(report) + "\n")
    _, status = os.waitpid(start(config, run.path), 0)
    if status:
        sys.exit(run.path.with_suffix(".log").read_text())


if __name__ == "__main__":
    assert rankserve.trainer.training.run
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
