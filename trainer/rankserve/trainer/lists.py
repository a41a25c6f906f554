"""Lists to rank: drawn within one source, anew in each epoch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset


@dataclass(slots=True, frozen=True)
class RankedPrompt:
    """A tokenised prompt with its label; higher label = shorter answer."""

    input_ids: tuple[int, ...]
    label: float


class ListDataset(Dataset[list[RankedPrompt]]):
    """Item ``i`` is the ``i``-th list of the current epoch.

    Lengths of different LLMs are not comparable, so a list never mixes sources. Each epoch cuts another
    shuffle of each source into lists and shuffles the lists; the remainder of a cut sits the epoch out. A
    source smaller than ``list_size`` makes one list of its own.
    """

    def __init__(self, sources: Sequence[Sequence[RankedPrompt]], list_size: int, seed: int) -> None:
        self._sources = sources
        self._list_size = list_size
        self._seed = seed
        self._lists: list[tuple[int, list[int]]] = []
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draws the lists of ``epoch``; the same ones whenever it is asked for."""
        rng = np.random.default_rng((self._seed, epoch))
        lists = []
        for number, prompts in enumerate(self._sources):
            order = rng.permutation(len(prompts)).tolist()
            size = min(self._list_size, len(order))
            lists += [(number, order[i : i + size]) for i in range(0, len(order) - size + 1, size)]
        self._lists = [lists[i] for i in rng.permutation(len(lists))]

    def __len__(self) -> int:
        return len(self._lists)

    def __getitem__(self, index: int) -> list[RankedPrompt]:
        number, members = self._lists[index]
        return [self._sources[number][i] for i in members]
