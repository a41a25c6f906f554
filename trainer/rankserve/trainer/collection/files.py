"""The rows of a file of prompts, whatever its format."""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from rankserve.records.jsonl import RecordError, read_jsonl
from rankserve.trainer.collection.errors import CollectionError

Rows = Iterator[tuple[int, dict[str, Any]]]


def read_rows(path: Path, *, field: str) -> Rows:
    """Yields (line or row number from 1, fields) of a file of prompts.

    JSON Lines (``.jsonl``, ``.ndjson``), a JSON list of objects (``.json``), one prompt a line (``.txt``) or
    a table with a heading (``.csv``, ``.tsv``), each also with ``.gz``; Parquet (``.parquet``).

    Args:
        path: the file.
        field: what a line of a ``.txt`` is called in its row.

    Raises:
        CollectionError: the name says no format that is known.
        RecordError: the file is not what its name says; names the line.
        OSError: the file cannot be opened.
        ModuleNotFoundError: Parquet, and pyarrow is not installed.
    """
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    readers: dict[str, Callable[[], Rows]] = {
        ".jsonl": lambda: read_jsonl(path),
        ".ndjson": lambda: read_jsonl(path),
        ".json": lambda: _read_json(path),
        ".txt": lambda: _read_lines(path, field),
        ".csv": lambda: _read_table(path, ","),
        ".tsv": lambda: _read_table(path, "\t"),
        ".parquet": lambda: _read_parquet(path),
    }
    if suffix not in readers:
        raise CollectionError(
            f"{path}: the name must end in one of {', '.join(readers)} (.gz may follow), to say the format"
        )
    return readers[suffix]()


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _decoded_lines(path: Path) -> Iterator[str]:
    """The lines of a text file, decoded one by one so that a bad one is named by its own number."""
    number = 0
    with _open(path) as lines:
        try:
            for number, line in enumerate(lines, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise RecordError(
                path, number, f"not UTF-8 ({error.reason}): convert the file, say with iconv"
            ) from None
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise RecordError(path, number + 1, f"unreadable ({error})") from None


def _read_lines(path: Path, field: str) -> Rows:
    for number, line in enumerate(_decoded_lines(path), start=1):
        if line.strip():
            yield number, {field: line.rstrip("\r\n")}


def _read_table(path: Path, delimiter: str) -> Rows:
    """Rows under a heading, each with the line that it begins on."""
    table = csv.DictReader(_decoded_lines(path), delimiter=delimiter, strict=True)
    begins = 1
    try:
        begins = 1 if table.fieldnames is None else table.line_num + 1
        for row in table:
            if None in row:
                raise RecordError(
                    path, begins, f"has more columns than the heading: quote what holds a {delimiter!r}"
                )
            yield begins, {key: value for key, value in row.items() if value}
            begins = table.line_num + 1
    except csv.Error as error:
        raise RecordError(path, begins, f"not a table ({error}): write it as .jsonl") from None


def _read_json(path: Path) -> Rows:
    try:
        document = json.loads("".join(_decoded_lines(path)))
    except json.JSONDecodeError as error:
        hint = "; if it is one object a line, name it .jsonl" if error.msg == "Extra data" else ""
        raise RecordError(path, error.lineno, f"not valid JSON ({error.msg}){hint}") from None
    except RecursionError:
        raise RecordError(path, 0, "not a list of objects: it is nested too deep") from None
    if not isinstance(document, list):
        raise RecordError(path, 0, f"must hold a list of objects, got {type(document).__name__}")
    for number, record in enumerate(document, start=1):
        if not isinstance(record, dict):
            raise RecordError(path, 0, f"entry {number} must be an object, got {type(record).__name__}")
        yield number, record


def _read_parquet(path: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for number, row in enumerate(batch.to_pylist(), start=number + 1):  # noqa: B020
                    yield number, row
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise RecordError(path, number + 1, f"unreadable Parquet ({error})") from None
