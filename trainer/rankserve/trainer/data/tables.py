"""Parquet and Arrow files, row by row, of which little is in memory at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

_ROWS_AT_A_TIME = 2048


class TableError(ValueError):
    """A file that is not a table. The message names it."""


def table_columns(path: Path) -> list[str]:
    """The names of a file's columns.

    Raises:
        TableError: it is neither Parquet nor, as its suffix says, Arrow.
        OSError: it cannot be opened.
    """
    try:
        if _is_arrow(path):
            with pa.OSFile(str(path)) as file:
                return list(_open_arrow(file).schema.names)
        return list(parquet.read_schema(path).names)
    except pa.ArrowInvalid as error:
        raise _not_a_table(path, error) from None


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Each row as column -> value.

    Args:
        path: Parquet, or Arrow (file or stream format) if its suffix is ``.arrow``, ``.feather`` or ``.ipc``.
        columns: which, all of them in the file.

    Raises:
        TableError: the file is damaged, or of another format.
        OSError: it cannot be opened or read.
    """
    try:
        for batch in _arrow_batches(path) if _is_arrow(path) else _parquet_batches(path, columns):
            yield from batch.select(list(columns)).to_pylist()
    except pa.ArrowInvalid as error:
        raise _not_a_table(path, error) from None


def _parquet_batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    # Otherwise whole row groups are read ahead, of whatever size their writer chose.
    with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        yield from file.iter_batches(_ROWS_AT_A_TIME, columns=list(columns), use_threads=False)


def _arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(path)) as file:
        reader = _open_arrow(file)
        batches = (
            map(reader.get_batch, range(reader.num_record_batches))
            if isinstance(reader, pa.RecordBatchFileReader)
            else reader
        )
        for batch in batches:
            for start in range(0, batch.num_rows, _ROWS_AT_A_TIME):
                yield batch.slice(start, _ROWS_AT_A_TIME)


def _open_arrow(file: pa.NativeFile) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    """The file format, or the stream format in which ``datasets`` keeps its own."""
    try:
        return pa.ipc.open_file(file)
    except pa.ArrowInvalid:
        file.seek(0)
        return pa.ipc.open_stream(file)


def _is_arrow(path: Path) -> bool:
    return path.suffix in (".arrow", ".feather", ".ipc")


def _not_a_table(path: Path, error: pa.ArrowInvalid) -> TableError:
    return TableError(f"{path} is not a whole Parquet or Arrow file ({error}): write it anew")
