"""Result records as Parquet: the same fields as in JSONL, a column each, for runs of millions of requests.

The run's header stands in the file's metadata under ``rankserve``, as the JSON object that is the first line
of a JSONL file. Needs pyarrow, imported when a file is written or read.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType
from typing import Any, Protocol, get_args, get_origin

from rankserve.records.jsonl import RecordError
from rankserve.records.results import ResultRecord, RunHeader, header_from_json, header_to_json

_METADATA_KEY = b"rankserve"
# Rows written at a time: what bounds the memory taken beside the columns themselves.
_ROW_GROUP = 131_072
# Columns with few values, which are numbered in the file.
_REPETITIVE = ["outcome", "prompt_chars", "preemptions", "promoted", "priority", "error"]
_HINT = "Parquet files need pyarrow: pip install 'rankserve[simulate]'"
_FIELDS = {field.name: field for field in fields(ResultRecord)}


class Column(Protocol):
    """A sequence or a numpy array."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


def write_run_columns(path: Path, header: RunHeader, columns: Mapping[str, Column]) -> None:
    """Writes a run as Parquet. The parent folder is made if missing.

    Args:
        path: the file.
        header: of the run.
        columns: field of `ResultRecord` -> one value a request, as a numpy array or another sequence; in
            `score` and `first_token_s` NaN stands for None. What is missing has the field's default.

    Raises:
        ValueError: a column is unknown, required and missing, of another length than `id`, or holds what its
            field cannot.
        OSError: the file cannot be written.
        ModuleNotFoundError: pyarrow is not installed.
    """
    pa, parquet = _import_pyarrow()
    rows = _check_columns(columns)
    schema = _schema(pa).with_metadata({_METADATA_KEY: json.dumps(header_to_json(header))})
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"compression": "zstd", "use_dictionary": _REPETITIVE, "write_page_checksum": True}
    with parquet.ParquetWriter(path, schema, **options) as writer:
        for start in range(0, rows, _ROW_GROUP):
            part = slice(start, min(start + _ROW_GROUP, rows))
            arrays = [_array(pa, field, columns.get(field.name), part) for field in schema]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def read_run_columns(path: Path) -> tuple[RunHeader, Any]:
    """Reads a run back as its header and a pyarrow table with a column for each field of `ResultRecord`.

    Raises:
        RecordError: not a result file of this schema, or damaged.
        OSError: the file cannot be opened.
        ModuleNotFoundError: pyarrow is not installed.
    """
    pa, parquet = _import_pyarrow()
    with path.open("rb"):
        pass  # a missing or unreadable file is an OSError; what pyarrow raises from here on is damage
    try:
        table = parquet.read_table(path, memory_map=True, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise RecordError(path, 0, f"not a Parquet file, or damaged ({error})") from None
    header = _read_header(path, table.schema.metadata or {})
    return header, _checked(pa, path, table)


def to_records(table: Any) -> Iterator[ResultRecord]:
    """The rows of a table of `read_run_columns`."""
    for batch in table.to_batches(max_chunksize=_ROW_GROUP):
        for row in batch.to_pylist():
            row["other_lengths"] = tuple(row["other_lengths"])
            yield ResultRecord(**row)


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise ModuleNotFoundError(_HINT, name="pyarrow") from None
    return pa, parquet


def _schema(pa: Any) -> Any:
    kinds = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}

    def column(name: str, annotation: Any) -> Any:
        if get_origin(annotation) is tuple:
            # Its items are named as Parquet names them, so that a file reads back with this schema.
            item = pa.field("element", kinds[get_args(annotation)[0]], nullable=False)
            return pa.field(name, pa.list_(item), nullable=False)
        kind, *others = get_args(annotation) or (annotation,)
        return pa.field(name, kinds[kind], nullable=NoneType in others)

    return pa.schema([column(name, field.type) for name, field in _FIELDS.items()])


def _check_columns(columns: Mapping[str, Column]) -> int:
    """How many rows there are. Raises ValueError."""
    if unknown := columns.keys() - _FIELDS.keys():
        raise ValueError(f"a result has no fields {', '.join(sorted(unknown))}")
    required = [name for name, field in _FIELDS.items() if field.default is MISSING]
    if missing := [name for name in required if name not in columns]:
        raise ValueError(f"needs the columns {', '.join(missing)}")
    rows = len(columns["id"])
    for name, values in columns.items():
        if len(values) != rows:
            raise ValueError(f"column {name} has {len(values)} rows, column id has {rows}")
    return rows


def _array(pa: Any, field: Any, values: Column | None, part: slice) -> Any:
    if values is None:
        default = _FIELDS[field.name].default
        value = [] if default == () else default
        return pa.repeat(pa.scalar(value, field.type), part.stop - part.start)
    try:
        # from_pandas: NaN is null. Cast, since the conversion itself would cut decimals off.
        array = pa.array(values[part], from_pandas=True).cast(field.type)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise ValueError(f"column {field.name} cannot be written as {field.type}: {error}") from None
    if problem := _problem(field, array):
        raise ValueError(problem)
    return array


def _read_header(path: Path, metadata: Mapping[bytes, bytes]) -> RunHeader:
    try:
        document = json.loads(metadata.get(_METADATA_KEY, b"{}"))
    except ValueError as error:
        raise RecordError(path, 0, f"its metadata is not valid JSON ({error})") from None
    if not isinstance(document, dict):
        raise RecordError(path, 0, "its metadata is not a JSON object")
    return header_from_json(path, 0, document)


def _checked(pa: Any, path: Path, table: Any) -> Any:
    """The table with all columns in order. Raises RecordError where it is no table of results."""
    schema = _schema(pa)
    if unknown := set(table.column_names) - set(schema.names):
        raise RecordError(path, 0, f"unknown columns {', '.join(sorted(unknown))}")
    arrays = []
    for field in schema:
        if field.name not in table.column_names:
            raise RecordError(path, 0, f'needs the column "{field.name}"')
        try:
            array = table[field.name].cast(field.type)
        except pa.ArrowException as error:
            raise RecordError(path, 0, f'column "{field.name}" must be {field.type} ({error})') from None
        if problem := _problem(field, array):
            raise RecordError(path, 0, problem)
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=schema)


def _problem(field: Any, array: Any) -> str:
    """What of an array does not fit its field, or ""."""
    from pyarrow import compute, types

    if array.null_count and not field.nullable:
        return f'column "{field.name}" has {array.null_count} rows without a value'
    if types.is_floating(field.type) and not compute.all(compute.is_finite(array), min_count=0).as_py():
        return f'column "{field.name}" has a value that is not a finite number'
    return ""
