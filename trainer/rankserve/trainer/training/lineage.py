"""Rankers that a run learns from, as teachers or as its backbone: what they saw, it has seen too."""

from collections.abc import Sequence
from pathlib import Path

from rankserve.records.prompts import known_as
from rankserve.trainer.config import TrainConfig
from rankserve.trainer.data.loading import DataError, SourceData
from rankserve.trainer.model import RankerModelError
from rankserve.trainer.training.run_folder import RunFolder


def inherited_prompts(config: TrainConfig, sources: Sequence[SourceData]) -> frozenset[str]:
    """``known_as`` of what those rankers were trained on, and the rankers that they learned from.

    Raises:
        DataError: one was trained on a prompt that is held out here.
        RankerModelError: a teacher is no finished run, so what it was trained on is unknown.
    """
    held_out = {known_as(each.prompt) for source in sources for each in (*source.validation, *source.test)}
    seen: set[str] = set()
    for what, path, run in _ancestors(config):
        prompts = run.trained_on()
        if known := sum(not prompts.isdisjoint(each) for each in held_out):
            raise DataError(
                f"the {what} {path} was trained on {known} of the {len(held_out)} prompts that are held out "
                f"here, and would give their lengths away: train it on the same files with the same split"
            )
        seen |= prompts
    return frozenset(seen)


def _ancestors(config: TrainConfig) -> list[tuple[str, Path, RunFolder]]:
    """("teacher" or "backbone", as the config names it, its run); of other backbones nothing is known."""
    found = []
    for path in config.distillation.teachers if config.distillation is not None else ():
        if (run := RunFolder.finished_at(path)) is None:
            raise RankerModelError(
                f"the teacher {path} is no finished run of `rankserve train`: train it first"
            )
        found.append(("teacher", path, run))
    backbone = Path(config.model.backbone)
    if backbone.is_dir() and (run := RunFolder.finished_at(backbone)) is not None:
        found.append(("backbone", backbone, run))
    return found
