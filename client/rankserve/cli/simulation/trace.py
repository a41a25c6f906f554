"""Traces: CSV files with a line a request, of when it came and how long prompt and answer were."""

import csv
import gzip
import math
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from rankserve.cli.simulation.workload import SimulationWorkload, from_trace
from rankserve.records.jsonl import RecordError
from rankserve.records.prompts import MOST_TOKENS

_COLUMNS = {"arrival_s": pa.float64(), "input_tokens": pa.int64(), "output_tokens": pa.int64()}


def is_trace(path: Path) -> bool:
    """Whether the file is a trace, by its name."""
    return path.name.endswith((".csv", ".csv.gz"))


def read_trace(path: Path, limit: int | None = None) -> SimulationWorkload:
    """Reads a CSV(.gz) file with the columns arrival_s, input_tokens and output_tokens; others are ignored.

    Raises:
        RecordError: a column is missing or a line cannot be used; names the file and the line.
        OSError: the file cannot be opened.
    """
    with path.open("rb"):
        pass  # a missing or unreadable file is an OSError; what pyarrow raises from here on is damage
    options = arrow_csv.ConvertOptions(include_columns=list(_COLUMNS), column_types=_COLUMNS)
    parts, rows = [], 0
    try:
        # Batch by batch, since of a large trace only the beginning may be asked for.
        with arrow_csv.open_csv(path, convert_options=options) as batches:
            for batch in batches:
                parts.append(batch)
                rows += len(batch)
                if limit is not None and rows >= limit:
                    break
    except (pa.ArrowException, KeyError, OSError) as error:
        raise _first_problem(path) or RecordError(path, 0, f"not a CSV file ({error})") from None
    table = pa.Table.from_batches(parts, pa.schema(_COLUMNS)).slice(0, limit)
    columns = {name: table[name].to_numpy() for name in _COLUMNS}
    lengths = columns["input_tokens"], columns["output_tokens"]
    arrival_s = columns["arrival_s"].astype(np.float64)
    if not len(table):
        raise RecordError(path, 0, "holds no request")
    if any(table[name].null_count for name in _COLUMNS) or not (
        np.isfinite(arrival_s).all()
        and arrival_s.min() >= 0
        and all(tokens.min() >= 1 and tokens.max() <= MOST_TOKENS for tokens in lengths)
    ):
        raise _first_problem(path) or RecordError(path, 0, "holds values that are no times or lengths")
    return from_trace(arrival_s, *(tokens.astype(np.int64) for tokens in lengths))


def _first_problem(path: Path) -> RecordError | None:
    """What is wrong with the first bad line: a slow look at a file that was found to be bad."""
    try:
        with _open(path) as file:
            reader = csv.DictReader(file)
            if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or ())]:
                wanted = ",".join(_COLUMNS)
                return RecordError(
                    path, 1, f"no column {', '.join(missing)}: the first line must name {wanted}"
                )
            for row in reader:
                if problem := _problem(row):
                    return RecordError(path, reader.line_num, problem)
    except (UnicodeDecodeError, csv.Error, gzip.BadGzipFile, zlib.error, EOFError) as error:
        return RecordError(path, 0, f"unreadable ({error})")
    return None


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return cast(IO[str], gzip.open(path, "rt", encoding="utf-8", newline=""))
    return path.open(encoding="utf-8", newline="")


def _problem(row: dict[str, str]) -> str:
    try:
        arrival_s = float(row["arrival_s"])
    except (TypeError, ValueError):
        arrival_s = math.nan
    if not (math.isfinite(arrival_s) and arrival_s >= 0):
        return f"arrival_s must be a number of seconds from 0, got {row['arrival_s']!r:.40}"
    for name in ("input_tokens", "output_tokens"):
        text = row[name]
        if not (text and text.strip().isdecimal() and 1 <= int(text) <= MOST_TOKENS):
            return f"{name} must be an integer from 1 to {MOST_TOKENS}, got {text!r:.40}"
    return ""
