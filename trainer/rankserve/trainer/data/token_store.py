"""Tokenised training prompts in a memory-mapped file: what lists are made of."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from rankserve.progress import Stage
from rankserve.records.prompts import PromptRecord
from rankserve.trainer.batches import encode
from rankserve.trainer.data.arrow_store import BATCH_ROWS, map_batches, write_rows
from rankserve.trainer.data.lists import RankedPrompt

_SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("lengths", pa.list_(pa.int32())),
        # A byte each, since bits cannot be mapped.
        ("censored", pa.list_(pa.uint8())),
    ]
)


def write_tokens(
    path: Path,
    records: Sequence[PromptRecord],
    tokenizer: PreTrainedTokenizerFast,
    max_length: int,
    tokenising: Stage,
) -> None:
    """Tokenises records into a file for ``TokenisedPrompts``. Advances ``tokenising`` by the prompts."""
    write_rows(path, _SCHEMA, _tokenised(records, tokenizer, max_length, tokenising))


class TokenisedPrompts(Sequence[RankedPrompt]):
    """Item ``i`` is the ``i``-th prompt of a file of ``write_tokens``, which is mapped, not read."""

    def __init__(
        self, path: Path, teacher: NDArray[np.float32] | None = None, *, with_lengths: bool = True
    ) -> None:
        """Maps a file.

        Args:
            path: the file.
            teacher: [prompts]; a teacher's scores, higher = shorter answer expected.
            with_lengths: whether the prompts come with their lengths.
        """
        batches = map_batches(path)
        self._rows: int = sum(batch.num_rows for batch in batches)
        self._columns = [
            tuple(_ListColumn(batch.column(name)) for name in _SCHEMA.names) for batch in batches
        ]
        self._teacher = teacher
        self._with_lengths = with_lengths

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, index: int) -> RankedPrompt: ...
    @overload
    def __getitem__(self, index: slice) -> list[RankedPrompt]: ...
    def __getitem__(self, index: int | slice) -> RankedPrompt | list[RankedPrompt]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        batch, row = divmod(index, BATCH_ROWS)
        input_ids, lengths, censored = self._columns[batch]
        return RankedPrompt(
            tuple(input_ids[row]),
            tuple(lengths[row]) if self._with_lengths else (),
            tuple(map(bool, censored[row])) if self._with_lengths else (),
            None if self._teacher is None else float(self._teacher[index]),
        )


class _ListColumn:
    """A column of lists, without copying any."""

    def __init__(self, column: pa.ListArray) -> None:
        self._offsets = column.offsets.to_numpy()
        self._values = column.values.to_numpy(zero_copy_only=True)

    def __getitem__(self, row: int) -> list[int]:
        values: list[int] = self._values[self._offsets[row] : self._offsets[row + 1]].tolist()
        return values


def _tokenised(
    records: Sequence[PromptRecord], tokenizer: PreTrainedTokenizerFast, max_length: int, tokenising: Stage
) -> Iterator[tuple[Sequence[int], ...]]:
    rest = iter(records)
    while batch := list(itertools.islice(rest, BATCH_ROWS)):
        rows = encode(tokenizer, [record.prompt for record in batch], max_length)
        yield from (
            (row, record.output_lengths, [int(cut) for cut in record.censored])
            for row, record in zip(rows, batch, strict=True)
        )
        tokenising.advance(len(batch))
