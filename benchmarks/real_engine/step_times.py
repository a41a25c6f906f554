"""How long the LLM's steps take, measured again before and after every run.

On a shared machine that changes by several per cent within minutes, and where a queue forms the waits change
by several times as much.
"""

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.real_engine.command import rankserve_json

from rankserve.progress import tell

# Coarser than by default, to take one and a half minutes: between these, times are nearly linear.
_GRID = ("--prefills", "16,256,1024")
_COLUMNS = ("prefill_tokens", "decode_sequences", "context_per_sequence", "prompts", "step_ms")


class StepTimesError(ValueError):
    """There are no step times around a run that a profile can be made of."""


def around(run: Path) -> tuple[Path, Path]:
    """The measurements before and after a run."""
    return run.with_name(f"{run.stem}-before.json"), run.with_name(f"{run.stem}-after.json")


@dataclass(slots=True)
class StepTimes:
    """Measures the LLM at this URL; that after a run is the one before the next.

    Attributes:
        url: of its OpenAI API.
        batch_cap: the LLM's.
    """

    url: str
    batch_cap: int
    _latest: Path | None = field(default=None, init=False)

    def before(self, run: Path) -> None:
        """Raises subprocess.CalledProcessError: it could not be measured."""
        path, _ = around(run)
        if self._latest is None:
            self._measure(path)
        else:
            shutil.copy(self._latest, path)

    def after(self, run: Path) -> None:
        """Raises subprocess.CalledProcessError: it could not be measured."""
        _, path = around(run)
        self._measure(path)
        self._latest = path

    def _measure(self, path: Path) -> None:
        tell("how long its steps take")
        counts = ",".join(map(str, sorted({1, max(1, self.batch_cap - 1), self.batch_cap})))
        with TemporaryDirectory() as folder:
            found = rankserve_json(
                *("profile", "measure", "--url", self.url, "--max-sequences", self.batch_cap),
                *("--sequences", counts, *_GRID, "--output", Path(folder) / "steps.csv"),
            )
        path.write_text(json.dumps(found) + "\n")


def decode_ms(measurement: Path) -> float:
    """How long a full batch decodes, its contexts short.

    Raises:
        StepTimesError: the measurement is not there.
    """
    steps = [step for step in _read(measurement)["steps"] if not step["prefill_tokens"]]
    most = max(step["decode_sequences"] for step in steps)
    full = [step for step in steps if step["decode_sequences"] == most]
    return float(min(full, key=lambda step: step["context_per_sequence"])["step_ms"])


def make_profile(measurements: Sequence[Path], folder: Path, slower: float = 1.0) -> Path:
    """Adds a profile with the means of these measurements, by `rankserve profile add`.

    Args:
        measurements: of the same steps.
        folder: where to.
        slower: factor of all steps' times.

    Raises:
        StepTimesError: one is not there, or they are not of the same steps.
        subprocess.CalledProcessError: the command failed, and has said why.
    """
    found = [_read(path) for path in measurements]
    # The first runs were measured without a step of several prompts.
    kinds = [[{"prompts": 1, **step} for step in each["steps"]] for each in found]
    steps, profile = folder / "steps.csv", folder / "profile.toml"
    with steps.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows((*step, slower * ms) for *step, ms in _mean_steps(kinds))
    # rankserve profile add NAME --steps CSV, and what the engine has.
    engine = found[0]["command"][6:]
    rankserve_json("profile", "add", profile, "--steps", steps, *engine)
    return profile


def _read(measurement: Path) -> dict[str, Any]:
    if not measurement.exists():
        raise StepTimesError(
            f"{measurement} does not exist: remove the run beside it, and"
            " `python -m benchmarks.real_engine compare` measures it again with its steps"
        )
    return dict(json.loads(measurement.read_text()))


def _mean_steps(found: Sequence[Sequence[dict[str, Any]]]) -> list[list[float]]:
    kinds = [
        [(step["prefill_tokens"], step["decode_sequences"], step["prompts"]) for step in steps]
        for steps in found
    ]
    if any(kind != kinds[0] for kind in kinds):
        raise StepTimesError(
            "the measurements around a run are not of the same steps: remove the run, and compare again"
        )
    return [[mean(step[column] for step in same) for column in _COLUMNS] for same in zip(*found, strict=True)]
