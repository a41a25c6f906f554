"""Run folders: those that are finished are read, the others are trained, or trained on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rankers.bench import Bench, relative
from benchmarks.rankers.estimate import announcement

from rankserve.progress import tell, track
from rankserve.trainer.config import TrainConfig
from rankserve.trainer.data.sources import source_files
from rankserve.trainer.trained_ranker import TrainedRanker
from rankserve.trainer.training.run import train
from rankserve.trainer.training.run_folder import RunError, RunFolder


@dataclass(slots=True, frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: of the run.
        training: what ``metrics.json`` says of it: parameters, seconds, steps, ...
    """

    folder: Path
    training: dict[str, Any]

    @property
    def torch_bytes(self) -> int:
        return (self.folder / "model" / "model.safetensors").stat().st_size

    def ranker(self) -> TrainedRanker:
        return TrainedRanker.load(self.folder)


def trained(bench: Bench, configs: Sequence[TrainConfig]) -> list[Run]:
    """The run of each config, in order; says how long training will take before it begins.

    Raises:
        RunError: a folder holds the run of another config, or a teacher is not there.
        DataError, RecordError, RankerModelError, ConfigError, OSError: as of ``training.train``.
    """
    for config in configs:
        for source in config.sources:
            source_files(source)
    missing = [config for config in configs if not is_finished(bench, config)]
    for config in missing:
        _check_teachers(config)
    tell(announcement(missing, len(configs)))
    return [_trained(bench, config) for config in track(configs, "all training runs", "runs")]


def folder_of(bench: Bench, config: TrainConfig) -> Path:
    return bench.runs / f"{config.name}-seed{config.seed}"


def is_finished(bench: Bench, config: TrainConfig) -> bool:
    """Whether the run folder of the config is there, complete, and of this config.

    Raises:
        RunError: it is complete, and of another config.
    """
    folder = folder_of(bench, config)
    if not RunFolder(folder).is_complete:
        return False
    # Read as a config, so that options which came into being after the run have their defaults.
    claim = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
    begun_with = TrainConfig.model_validate(claim)
    if begun_with != config:
        changed = [
            name for name in TrainConfig.model_fields if getattr(begun_with, name) != getattr(config, name)
        ]
        raise RunError(
            f"{relative(folder)} was trained with other {', '.join(changed)}: remove it, or say with --runs "
            "where else the runs are"
        )
    return True


def _trained(bench: Bench, config: TrainConfig) -> Run:
    folder = folder_of(bench, config)
    if not is_finished(bench, config):
        tell(f"training {relative(folder)}")
        # Without baselines: they depend on the prompts alone, and each section measures its own once.
        train(config, folder, resume=True, baselines=False)
    metrics = RunFolder(folder).finished_metrics() or {}
    return Run(folder, metrics["training"])


def _check_teachers(config: TrainConfig) -> None:
    for teacher in config.distillation.teachers if config.distillation is not None else ():
        if not RunFolder(teacher).is_complete:
            raise RunError(
                f"{config.name} learns from the ranker in {relative(teacher)}, and there is no finished run: "
                f"train it first with `rankserve train --config ... --output {relative(teacher)}`"
            )
