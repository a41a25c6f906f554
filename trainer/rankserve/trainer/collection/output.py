"""The file that training reads: prompts with the lengths collected for them, replaced as a whole."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rankserve.records.jsonl import write_jsonl
from rankserve.trainer.collection.answers import Answer
from rankserve.trainer.collection.errors import CollectionError
from rankserve.trainer.collection.prompts import Prompt
from rankserve.trainer.collection.sampling import Sampling

PARQUET_SUFFIX = ".parquet"
_SUFFIXES = (".jsonl", ".jsonl.gz", PARQUET_SUFFIX)
_ROWS_IN_GROUP = 10_000


def check_output(path: Path) -> None:
    """Checks that the file can be written, before anything is asked for it.

    Raises:
        CollectionError: its name says no format that is written.
        ModuleNotFoundError: Parquet, and pyarrow is not installed.
    """
    if not path.name.endswith(_SUFFIXES):
        raise CollectionError(f"--output must end in {', '.join(_SUFFIXES)}, got {path.name!r:.80}")
    if path.suffix == PARQUET_SUFFIX:
        import pyarrow.parquet  # noqa: F401


def length_record(prompt: Prompt, answers: Sequence[Answer], sampling: Sampling) -> dict[str, Any]:
    """One prompt as ``rankserve train`` reads it; ``censored[i]`` says that length i is "at least"."""
    return {
        "id": prompt.id,
        "prompt": prompt.text,
        "lengths": [answer.output_tokens for answer in answers],
        "censored": [answer.censored for answer in answers],
        "model": sampling.model,
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_tokens,
    }


def write_output(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes the file beside its place, syncs it and moves it there: a reader sees all of it or the old one.

    Raises:
        OSError: it cannot be written.
        ModuleNotFoundError: Parquet, and pyarrow is not installed.
    """
    # The name keeps its end, which says the format.
    unfinished = path.with_name(f".unfinished-{path.name}")
    try:
        if path.suffix == PARQUET_SUFFIX:
            _write_parquet(unfinished, list(records))
        else:
            write_jsonl(unfinished, records)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Syncs a folder, without which a file that is new in it may be gone after a power failure."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_parquet(path: Path, records: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("prompt", pa.string(), nullable=False),
            pa.field("lengths", pa.list_(pa.int64()), nullable=False),
            pa.field("censored", pa.list_(pa.bool_()), nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("temperature", pa.float64(), nullable=False),
            pa.field("max_tokens", pa.int64(), nullable=False),
        ]
    )
    pq.write_table(pa.Table.from_pylist(records, schema=schema), path, row_group_size=_ROWS_IN_GROUP)
