"""The prompts that rankers are judged by, and which of their sampled lengths."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from rankserve.records.jsonl import read_jsonl
from rankserve.records.prompts import PromptRecord
from rankserve.trainer.config import FileSource, Source, TrainConfig
from rankserve.trainer.data.loading import load_sources
from rankserve.trainer.data.sources import DataError
from rankserve.trainer.evaluation.metrics import lengths_matrix

Numbers = NDArray[np.float64]


@dataclass(slots=True, frozen=True)
class HeldOut:
    """The test split of a config's first source that is not auxiliary.

    Attributes:
        name: of the source.
        test: its test split, at least two.
        train: its training split.
        auxiliary: training prompts with lengths of other LLMs.
        sample: which of a prompt's lengths is the single sample: the one that was drawn at the highest
            temperature, where the file states those, else the last.
        temperature: of that sample; None if the file states none.
    """

    name: str
    test: tuple[PromptRecord, ...]
    train: tuple[PromptRecord, ...]
    auxiliary: tuple[PromptRecord, ...]
    sample: int
    temperature: float | None

    @property
    def prompts(self) -> list[str]:
        return [record.prompt for record in self.test]

    @property
    def lengths(self) -> Numbers:
        """[prompts, samples]."""
        return lengths_matrix(self.test)

    @property
    def single(self) -> Numbers:
        """The single sample, [prompts]."""
        return self.lengths[:, self.sample]

    @property
    def mean(self) -> Numbers | None:
        """Mean of all samples, [prompts]; None where there is one."""
        lengths = self.lengths
        return lengths.mean(axis=1) if lengths.shape[1] > 1 else None

    @property
    def others(self) -> Numbers:
        """The other samples, [prompts, samples - 1]."""
        return np.delete(self.lengths, self.sample, axis=1)


def held_out(config: TrainConfig) -> HeldOut:
    """Reads and splits a config's data as training does.

    Raises:
        RecordError, DataError, OSError: it cannot be read, or holds too few prompts.
    """
    with TemporaryDirectory() as folder:
        data = load_sources(config, Path(folder))
        number = next(i for i, source in enumerate(config.sources) if not source.auxiliary)
        main = data[number]
        train = tuple(main.train)
        auxiliary = tuple(record for each in data if each.auxiliary for record in each.train)
    if len(main.test) < 2:
        raise DataError(f"source {main.name!r} holds out {len(main.test)} test prompts: an order needs two")
    samples = lengths_matrix(main.test).shape[1]
    sample, temperature = _hottest(config.sources[number], samples)
    return HeldOut(main.name, main.test, train, auxiliary, sample, temperature)


def _hottest(source: Source, samples: int) -> tuple[int, float | None]:
    """Number and temperature of the single sample; ``PromptRecord`` only keeps their order."""
    if not isinstance(source, FileSource):
        return samples - 1, None
    stated = {tuple(record.get("temperatures", ())) for _, record in read_jsonl(source.path)}
    if stated == {()}:
        return samples - 1, None
    if len(stated) > 1 or len(next(iter(stated))) != samples:
        raise DataError(
            f'{source.path}: "temperatures" has to be the same on each line, one for each of the {samples} '
            "lengths that every prompt has: leave lines out, or leave it out"
        )
    temperatures = next(iter(stated))
    sample = int(np.argmax(temperatures))
    return sample, float(temperatures[sample])
