"""The prompts of a source on disk, and a part of them as a sequence that reads what it is asked for."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rankserve.records.prompts import PromptRecord
from rankserve.trainer.data.arrow_store import BATCH_ROWS, read_batches, write_rows

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.string()),
        ("lengths", pa.list_(pa.int32())),
        ("censored", pa.list_(pa.bool_())),
    ]
)


def write_prompts(path: Path, records: Iterable[PromptRecord]) -> None:
    """Writes records, without their category, for ``StoredPrompts``."""
    write_rows(
        path,
        _SCHEMA,
        ((record.id, record.prompt, record.output_lengths, record.censored) for record in records),
    )


@dataclass(slots=True, frozen=True, eq=False)
class StoredPrompts(Sequence[PromptRecord]):
    """Some of the prompts in a file; iterating holds a few thousand of them at a time.

    Attributes:
        path: what ``write_prompts`` wrote.
        rows: int64, rising; which of the file's.
    """

    path: Path
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[PromptRecord]:
        for batch in self._batches():
            columns = (batch.column(name).to_pylist() for name in _SCHEMA.names)
            for identifier, prompt, lengths, censored in zip(*columns, strict=True):
                yield PromptRecord(identifier, prompt, tuple(lengths), censored=tuple(censored))

    @overload
    def __getitem__(self, index: int) -> PromptRecord: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredPrompts": ...
    def __getitem__(self, index: int | slice) -> "PromptRecord | StoredPrompts":
        if isinstance(index, slice):
            return StoredPrompts(self.path, self.rows[index])
        [record] = StoredPrompts(self.path, self.rows[[index]])
        return record

    def prompts(self) -> Iterator[str]:
        """Their texts alone."""
        for batch in self._batches():
            yield from batch.column("prompt").to_pylist()

    def sample(self, most: int) -> "StoredPrompts":
        """So many at most, evenly spread."""
        if len(self) <= most:
            return self
        return StoredPrompts(
            self.path, self.rows[np.linspace(0, len(self) - 1, most).round().astype(np.int64)]
        )

    def _batches(self) -> Iterator[pa.RecordBatch]:
        end = int(self.rows[-1]) + 1 if len(self.rows) else 0
        for number, batch in enumerate(read_batches(self.path)):
            start = number * BATCH_ROWS
            if start >= end:
                return
            first, last = np.searchsorted(self.rows, [start, start + BATCH_ROWS])
            if first < last:
                yield batch.take(pa.array(self.rows[first:last] - start))
