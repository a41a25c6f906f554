"""Measurements as CSV, plain or gzip, with errors that say where and what to do."""

import csv
import gzip
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType


class TableError(ValueError):
    """A table of measurements cannot be used; the text names file, line and remedy."""


def read_table(
    path: Path,
    numbers: Mapping[str, tuple[str, ...]],
    labels: tuple[str, ...] = (),
    defaults: Mapping[str, float] = MappingProxyType({}),
) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """Reads these columns of a CSV file with a header line; others are ignored.

    Args:
        path: the file; gzip if its name ends in ``.gz``.
        numbers: columns of numbers >= 0, by the name they get, with the names that the header may use.
        labels: columns of text.
        defaults: columns of numbers that may be missing, and what they then hold.

    Returns:
        The columns of numbers and of text, each as long as the table.

    Raises:
        TableError: the file cannot be read, lacks a column, or holds something else than such a number.
    """
    read: dict[str, list[float]] = {}
    texts: dict[str, list[str]] = {name: [] for name in labels}
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            numbers = {**numbers, **{name: (name,) for name in defaults if name in header}}
            read = {name: [] for name in numbers}
            places = {name: _place(path, header, aliases) for name, aliases in numbers.items()}
            places |= {name: _place(path, header, (name,)) for name in labels}
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise TableError(
                        f"{path}, line {reader.line_num}: {len(cells)} values under a header of"
                        f" {len(header)}; correct or remove the line"
                    )
                for name, column in read.items():
                    column.append(_number(path, reader.line_num, header, cells, places[name]))
                for name, text in texts.items():
                    text.append(cells[places[name]].strip())
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: cannot be read as CSV ({error}); give a .csv or .csv.gz file") from error
    lines = len(next(iter((read | texts).values())))
    if not lines:
        raise TableError(f"{path}: holds no measurement below its header line")
    return {name: [default] * lines for name, default in defaults.items()} | read, texts


def _place(path: Path, header: list[str], aliases: tuple[str, ...]) -> int:
    for alias in aliases:
        if alias in header:
            return header.index(alias)
    names = " or ".join(repr(alias) for alias in aliases)
    raise TableError(f"{path}, line 1: no column {names} among {', '.join(header) or 'none'}; name one so")


def _number(path: Path, line: int, header: list[str], cells: list[str], place: int) -> float:
    try:
        value = float(cells[place])
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise TableError(
            f"{path}, line {line}: {header[place]} is {cells[place]!r}, but must be a number >= 0;"
            " correct or remove the line"
        )
    return value
