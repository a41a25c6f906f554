"""What every section is given, and what is written down beside its figures."""

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rankserve.client.load.machine import describe_machine, package_versions
from rankserve.trainer.config import (
    OPT_MINI,
    OPT_TRANSPLANT,
    MiniShape,
    ModelConfig,
    TrainConfig,
    TransplantConfig,
    load_config,
)

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "benchmarks" / "configs"
OUTPUT = ROOT / "out" / "rankers"
PAGE = ROOT / "docs" / "rankers.md"

PACKAGES = ("rankserve", "torch", "transformers", "onnxruntime", "onnxruntime-gpu", "scikit-learn", "numpy")
# A trial trains on so little that its figures mean nothing, and its run folders are kept apart.
_TRIAL_PROMPTS = 600
_TRIAL_SPLIT = (0.6, 0.2, 0.2)


@dataclass(slots=True, frozen=True)
class Bench:
    """Attributes:
    output: folder of each section's JSON and of the exported rankers.
    runs: folder of run folders, ``NAME-seedN`` with the name from the config.
    seeds: of the training runs.
    quick: a trial on few prompts.
    """

    output: Path
    runs: Path
    seeds: tuple[int, ...]
    quick: bool

    @property
    def models(self) -> Path:
        """The repository of exported rankers."""
        return self.output / "models"

    def load(self, path: Path, seed: int) -> TrainConfig:
        """A config with this seed; made small if this is a trial.

        Raises:
            ConfigError: it cannot be used.
            OSError: it cannot be read.
        """
        return self.sized(load_config(path, seed=seed))

    def sized(self, config: TrainConfig) -> TrainConfig:
        """Made small if this is a trial."""
        return trial(config) if self.quick else config


@dataclass(slots=True, frozen=True)
class Conditions:
    """How figures came about.

    Attributes:
        command: that printed them.
        machine: that they were computed on.
        versions: of Python and the packages that matter.
        commit: of the code; ends in "-dirty" where files had been edited since.
        date: of the day, in UTC.
        quick: whether it was a trial.
    """

    command: str
    machine: str
    versions: dict[str, str]
    commit: str
    date: str
    quick: bool

    @classmethod
    def now(cls, bench: Bench, arguments: Sequence[str]) -> "Conditions":
        return cls(
            command=f"python -m benchmarks.rankers {shlex.join(arguments)}",
            machine=describe_machine(),
            versions=package_versions(PACKAGES),
            commit=_commit(),
            date=f"{datetime.now(UTC):%Y-%m-%d}",
            quick=bench.quick,
        )

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return f"`{self.command}`, {self.date}, commit {self.commit}. {self.machine}; {versions}."


def trial(config: TrainConfig) -> TrainConfig:
    """The same on few prompts, once, without auxiliary sources and teachers, and of one layer if an OPT."""
    limited = [
        source.model_copy(update={"limit": min(source.limit or _TRIAL_PROMPTS, _TRIAL_PROMPTS)})
        for source in config.sources
        if not source.auxiliary
    ]
    once = config.optimisation.model_copy(update={"epochs": 1, "evaluations_per_epoch": 1})
    return config.model_copy(
        update={
            "sources": limited,
            "split": _TRIAL_SPLIT,
            "distillation": None,
            "optimisation": once,
            "model": _of_one_layer(config.model),
        }
    )


def _of_one_layer(model: ModelConfig) -> ModelConfig:
    if model.backbone == OPT_TRANSPLANT:
        transplant = model.transplant or TransplantConfig()
        first = transplant.model_copy(update={"layers": transplant.layers[:1]})
        return model.model_copy(update={"transplant": first})
    if model.backbone == OPT_MINI:
        mini = (model.mini or MiniShape()).model_copy(update={"layers": 1})
        return model.model_copy(update={"mini": mini})
    return model


def relative(path: Path) -> str:
    """A path as seen from the project's root, where it is within."""
    path = path.absolute()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _commit() -> str:
    """Empty outside a repository, such as in an unpacked archive."""
    found = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"
