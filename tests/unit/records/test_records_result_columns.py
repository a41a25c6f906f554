"""Result records as Parquet: the same as JSONL, and refused where damaged."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="needs the extra simulate: pip install 'rankserve[simulate]'")

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from rankserve.records.jsonl import RecordError
from rankserve.records.result_columns import read_run_columns, write_run_columns
from rankserve.records.results import ResultRecord, RunHeader, read_run, write_run

HEADER = RunHeader(
    policy="ranking",
    engine="simulated/x",
    arrivals={"process": "poisson", "rate": 2.5},
    queue_depth=((0.0, 3), (0.2, 4)),
    settings={"preemption": "swap"},
    engine_usage={"steps": 7},
)
RESULTS = (
    ResultRecord("a", "finished", 0.1, 2.0, 0.5, 10, 20, (19, 21), 44, score=1.5, promoted=True),
    ResultRecord("b", "cancelled", 0.2, 0.3, error="cancelled by its client"),
    ResultRecord("ç", "finished", 0.25, 7.0, None, 2**40, 1, (), 3, priority=-5),
)
REQUIRED: dict[str, Any] = {"id": ["a", "b"], "outcome": ["finished"] * 2, "sent_s": [0, 1], "end_s": [1, 2]}


def columns_of(results: tuple[ResultRecord, ...]) -> dict[str, Any]:
    return {field.name: [getattr(r, field.name) for r in results] for field in fields(ResultRecord)}


def test_a_run_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.parquet"
    write_run_columns(path, HEADER, columns_of(RESULTS))
    run = read_run(path)
    assert run.header == HEADER
    assert run.results == RESULTS
    # To JSONL and back is the same again.
    write_run(tmp_path / "run.jsonl.gz", run.header, run.results)
    assert read_run(tmp_path / "run.jsonl.gz") == run


def test_missing_columns_have_their_defaults_and_nan_stands_for_none(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    write_run_columns(
        path,
        HEADER,
        {
            "id": np.array(["a", "b"]),
            "outcome": np.array(["finished", "finished"]),
            "sent_s": np.array([0.0, 1.0]),
            "end_s": np.array([1.0, 2.0]),
            "score": np.array([np.nan, 2.0]),
            "preemptions": np.array([0, 3]),
        },
    )
    assert read_run(path).results == (
        ResultRecord("a", "finished", 0.0, 1.0),
        ResultRecord("b", "finished", 1.0, 2.0, score=2.0, preemptions=3),
    )


def test_many_row_groups_are_one_run(tmp_path: Path) -> None:
    count = 300_000
    path = tmp_path / "run.parquet"
    ids = np.arange(count).astype("U6")
    seconds = np.arange(count, dtype=np.float64)
    columns = {"id": ids, "outcome": np.full(count, "finished"), "sent_s": seconds, "end_s": seconds + 1}
    write_run_columns(path, HEADER, columns)
    assert parquet.ParquetFile(path).num_row_groups == 3
    header, table = read_run_columns(path)
    assert header == HEADER
    assert table["id"].to_pylist()[-1] == "299999"
    assert np.array_equal(table["end_s"].to_numpy(), seconds + 1)


def test_a_run_without_requests_is_a_run(tmp_path: Path) -> None:
    write_run_columns(tmp_path / "run.parquet", HEADER, {name: [] for name in REQUIRED})
    assert read_run(tmp_path / "run.parquet").results == ()


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"id": ["a"], "outcome": ["finished"], "sent_s": [0.0]}, "needs the columns end_s"),
        ({**REQUIRED, "surprise": [1, 2]}, "no fields surprise"),
        ({**REQUIRED, "output_tokens": [1]}, "column output_tokens has 1 rows, column id has 2"),
        ({**REQUIRED, "output_tokens": ["many", "few"]}, "column output_tokens cannot be written as int64"),
        ({**REQUIRED, "output_tokens": [1.5, 2]}, "column output_tokens cannot be written as int64"),
        ({**REQUIRED, "end_s": np.array([1.0, np.nan])}, '"end_s" has 1 rows without a value'),
        ({**REQUIRED, "score": [1.0, float("inf")]}, '"score" has a value that is not a finite number'),
    ],
)
def test_what_is_no_result_is_not_written(tmp_path: Path, columns: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=r"column|field") as error:
        write_run_columns(tmp_path / "run.parquet", HEADER, columns)
    assert problem in str(error.value)


def cut_short(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip_a_bit_of_a_page(data: bytes) -> bytes:
    # The pages come first, after four magic bytes; the middle of the file is the footer here.
    return data[:200] + bytes([data[200] ^ 4]) + data[201:]


def another_format(data: bytes) -> bytes:
    return b'{"schema": "rankserve.results/1"}\n'


def nothing_left(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [cut_short, flip_a_bit_of_a_page, another_format, nothing_left])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "run.parquet"
    write_run_columns(path, HEADER, columns_of(RESULTS * 50))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RecordError) as error:
        read_run(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_run(tmp_path / "run.parquet")


def rewritten(path: Path, change: Callable[[Any], Any]) -> Path:
    write_run_columns(path, HEADER, columns_of(RESULTS))
    parquet.write_table(change(parquet.read_table(path)), path)
    return path


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda table: table.replace_schema_metadata(None), "must have schema 'rankserve.results/1'"),
        (lambda table: table.replace_schema_metadata({"rankserve": "["}), "metadata is not valid JSON"),
        (lambda table: table.replace_schema_metadata({"rankserve": "[]"}), "metadata is not a JSON object"),
        (
            lambda table: table.replace_schema_metadata({"rankserve": '{"schema": "rankserve.results/9"}'}),
            "must have schema",
        ),
        (lambda table: table.drop_columns(["end_s"]), 'needs the column "end_s"'),
        (lambda table: table.append_column("surprise", [[1, 2, 3]]), "unknown columns surprise"),
        (
            lambda table: table.set_column(2, "sent_s", [["soon", "later", "never"]]),
            'column "sent_s" must be double',
        ),
        (
            lambda table: table.set_column(2, "sent_s", pa.array([[1.0, None, 2.0]]).flatten()),
            '"sent_s" has 1 rows without a value',
        ),
    ],
)
def test_a_table_of_another_schema_is_refused(
    tmp_path: Path, change: Callable[[Any], Any], problem: str
) -> None:
    path = rewritten(tmp_path / "run.parquet", change)
    with pytest.raises(RecordError) as error:
        read_run(path)
    assert problem in error.value.problem


def test_records_load_no_pyarrow_before_it_is_needed(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules['pyarrow'] = None\n"
        "from pathlib import Path\n"
        "from rankserve.records.result_columns import write_run_columns\n"
        "from rankserve.records.results import RunHeader\n"
        "write_run_columns(Path('run.parquet'), RunHeader('fcfs', 'x'), {})\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert "pip install 'rankserve[simulate]'" in shown.stderr
