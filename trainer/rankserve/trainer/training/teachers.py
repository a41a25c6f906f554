"""What rankers that were trained before make of the training prompts."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankserve.progress import Stage, stage
from rankserve.records.prompts import PromptRecord
from rankserve.trainer.config import DistillationConfig
from rankserve.trainer.data.loading import SourceData
from rankserve.trainer.trained_ranker import TrainedRanker

_CHUNK = 2048


def write_teacher_scores(
    config: DistillationConfig, sources: Sequence[SourceData], files: Sequence[Path]
) -> None:
    """Scores the training prompts of each source into its file: float32 [prompts], the mean of all teachers.

    Raises:
        RankerModelError: a folder holds no usable ranker.
    """
    sums = [np.zeros(len(source.train), dtype=np.float64) for source in sources]
    for folder in config.teachers:
        teacher = TrainedRanker.load(folder)
        for source, total in zip(sources, sums, strict=True):
            with stage(f"teacher {folder.name} on {source.name}", len(source.train), "prompts") as scoring:
                total += _scores(teacher, source.train, scoring)
    for path, total in zip(files, sums, strict=True):
        # Renamed once whole: an interrupted run scores again what it has not.
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.save(file, (total / len(config.teachers)).astype(np.float32))
        temporary.replace(path)


def _scores(teacher: TrainedRanker, records: Iterable[PromptRecord], scoring: Stage) -> NDArray[np.float32]:
    return np.concatenate(list(_chunks(teacher, iter(records), scoring)))


def _chunks(
    teacher: TrainedRanker, records: Iterator[PromptRecord], scoring: Stage
) -> Iterator[NDArray[np.float32]]:
    while chunk := [record.prompt for record in itertools.islice(records, _CHUNK)]:
        yield teacher.score(chunk, scoring)
