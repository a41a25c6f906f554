"""Rows in an Arrow file of our own, in batches of equal size, so that a row's number says where it is."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

BATCH_ROWS = 4096


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[tuple[Any, ...]]) -> None:
    """Writes rows, whose values are in the order of the schema. The file appears when it is whole."""
    temporary = path.with_suffix(".tmp")
    with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        batch: list[tuple[Any, ...]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == BATCH_ROWS:
                writer.write_batch(_record_batch(batch, schema))
                batch.clear()
        if batch:
            writer.write_batch(_record_batch(batch, schema))
    temporary.replace(path)


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches one after the other, read and let go."""
    with pa.OSFile(str(path)) as file:
        reader = pa.ipc.open_file(file)
        yield from map(reader.get_batch, range(reader.num_record_batches))


def map_batches(path: Path) -> list[pa.RecordBatch]:
    """All batches, mapped into memory: pages are read when they are used, and can be dropped again."""
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    return [reader.get_batch(i) for i in range(reader.num_record_batches)]


def _record_batch(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.record_batch(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
