"""Lists to rank: drawn within one source, anew in each epoch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset


@dataclass(slots=True, frozen=True)
class RankedPrompt:
    """A tokenised prompt with its sampled output lengths.

    Attributes:
        input_ids: its tokens.
        lengths: output tokens of each sample.
        censored: for each sample whether it was cut there and is "at least" so long.
        teacher: a teacher's score, higher = shorter answer expected.
    """

    input_ids: Sequence[int]
    lengths: Sequence[float]
    censored: Sequence[bool]
    teacher: float | None = None


@dataclass(slots=True, frozen=True)
class RankedList:
    """Prompts to rank against each other, and the number of their source."""

    source: int
    prompts: list[RankedPrompt]


class ListDataset(Dataset[RankedList]):
    """Item ``i`` is the ``i``-th list of the current epoch.

    Lengths of different LLMs are not comparable, so a list never mixes sources. Each epoch cuts another
    shuffle of each source into lists and shuffles the lists; the remainder of a cut sits the epoch out. A
    source smaller than ``list_size`` makes one list of its own.

    Holds 8 bytes a prompt; the prompts themselves are asked for as they are needed.
    """

    def __init__(self, sources: Sequence[Sequence[RankedPrompt]], list_size: int, seed: int) -> None:
        self._sources = sources
        self._list_size = list_size
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draws the lists of ``epoch``; the same ones whenever it is asked for."""
        rng = np.random.default_rng((self._seed, epoch))
        self._orders = [rng.permutation(len(prompts)) for prompts in self._sources]
        cuts = [(number, start) for number in range(len(self._sources)) for start in self._starts(number)]
        self._lists = np.array(cuts, dtype=np.int64)[rng.permutation(len(cuts))]

    def __len__(self) -> int:
        return len(self._lists)

    @property
    def prompts(self) -> int:
        """In the lists of an epoch."""
        return sum(self._size(number) * len(self._starts(number)) for number in range(len(self._sources)))

    def __getitem__(self, index: int) -> RankedList:
        number, start = self._lists[index].tolist()
        members = self._orders[number][start : start + self._size(number)]
        return RankedList(number, [self._sources[number][i] for i in members.tolist()])

    def _starts(self, number: int) -> range:
        size = self._size(number)
        return range(0, len(self._sources[number]) - size + 1, size)

    def _size(self, number: int) -> int:
        return min(self._list_size, len(self._sources[number]))
