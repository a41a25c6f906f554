"""Sources of Parquet and Arrow files."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from rankserve.trainer.config import TrainConfig, parse_config
from rankserve.trainer.data.loading import load_sources
from rankserve.trainer.data.sources import DataError, read_source


def config_of(path: str, **settings: Any) -> TrainConfig:
    source = {"kind": "parquet", "name": "t", "licence": "MIT", "path": path, **settings}
    return parse_config({"name": "x", "sources": [source]}, origin=Path("/nowhere/x.toml"))


def records_of(path: Path | str, **settings: Any) -> list[tuple[Any, ...]]:
    [source] = config_of(str(path), **settings).sources
    return [
        (record.id, record.prompt, record.output_lengths, record.censored) for record in read_source(source)
    ]


ROWS = {
    "id": ["a", None, "c"],
    "prompt": ["one", "two", "three"],
    "lengths": [[1, 2], [3], [4, 5]],
    "censored": [[False, True], None, [False, False]],
    "other": [1, 2, 3],
}
EXPECTED = [
    ("a", "one", (1, 2), (False, True)),
    ("3fc4ccfe745870e2", "two", (3,), (False,)),
    ("c", "three", (4, 5), (False, False)),
]


def test_parquet_and_both_formats_of_arrow(tmp_path: Path) -> None:
    table = pa.table(ROWS)
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    with pa.OSFile(str(tmp_path / "file.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    with (
        pa.OSFile(str(tmp_path / "stream.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=1)
    for name in ("t.parquet", "file.arrow", "stream.arrow"):
        assert records_of(tmp_path / name) == EXPECTED, name


def test_lengths_of_several_llms_do_not_mix(tmp_path: Path) -> None:
    for name in "ab":
        rows = {"prompt": ["one", f"two {name}"], "output_tokens": [1, 2], "model": [None, name]}
        parquet.write_table(pa.table(rows), tmp_path / f"{name}.parquet")
        assert len(records_of(tmp_path / f"{name}.parquet")) == 2
    with pytest.raises(
        DataError, match=r"b\.parquet, row 2: .* 'b', and those of .*a\.parquet, row 2 of 'a'"
    ):
        records_of(tmp_path / "*.parquet")


def test_several_files_of_single_lengths_and_a_cap(tmp_path: Path) -> None:
    for name, length in (("b", 9), ("a", 5)):
        parquet.write_table(
            pa.table({"prompt": [name], "output_tokens": [length]}), tmp_path / f"{name}.parquet"
        )
    found = records_of(tmp_path / "*.parquet", length_cap=9)
    assert [record[1:] for record in found] == [("a", (5,), (False,)), ("b", (9,), (True,))]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"prompt": ["a", "b"], "output_tokens": [3, -1]}, r"t\.parquet, row 2: .*-1"),
        ({"prompt": ["a", ""], "output_tokens": [3, 1]}, r"t\.parquet, row 2: .*prompt"),
        (
            {"text": ["a"], "output_tokens": [3]},
            r"t\.parquet needs a column prompt .* only text, output_tokens",
        ),
        ({"prompt": ["a"], "tokens": [3]}, r"a column output_tokens or lengths"),
    ],
)
def test_what_is_wrong_is_named(columns: dict[str, Any], problem: str, tmp_path: Path) -> None:
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=problem):
        records_of(tmp_path / "t.parquet")


def test_a_file_that_is_no_table_or_is_cut_off_is_named(tmp_path: Path) -> None:
    whole = tmp_path / "t.parquet"
    parquet.write_table(pa.table(ROWS), whole)
    for name, content in (
        ("json.parquet", b"{}"),
        ("cut.parquet", whole.read_bytes()[:-9]),
        ("x.arrow", b"{}"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name} is not a whole Parquet or Arrow file"):
            records_of(tmp_path / name)
    with pytest.raises(DataError, match="there is no file"):
        load_sources(config_of(str(tmp_path / "no*.parquet")), tmp_path / "run")


def test_two_prompts_with_one_id_are_named(tmp_path: Path) -> None:
    ids = [f"r{i}" for i in range(50)]
    ids[40] = ids[10]
    prompts = [f"prompt {i}" for i in range(50)]
    parquet.write_table(
        pa.table({"id": ids, "prompt": prompts, "output_tokens": [1] * 50}), tmp_path / "t.parquet"
    )
    with pytest.raises(DataError, match="rows 11 and 41"):
        load_sources(config_of(str(tmp_path / "t.parquet")), tmp_path / "run")


def test_unchanged_data_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    columns: dict[str, Any] = {"prompt": [f"prompt {i}" for i in range(90)], "output_tokens": [1] * 90}
    parquet.write_table(pa.table(columns), path)
    [first] = load_sources(config_of(str(path)), tmp_path / "run")
    stamp = first.train.path.stat().st_mtime_ns
    [again] = load_sources(config_of(str(path)), tmp_path / "run")
    assert again.train.path.stat().st_mtime_ns == stamp
    assert list(again.train) == list(first.train)
    columns["output_tokens"][0] = 2
    parquet.write_table(pa.table(columns), path)
    [changed] = load_sources(config_of(str(path)), tmp_path / "run")
    assert changed.train.path.stat().st_mtime_ns != stamp


_MEASURE = """
import json, resource, sys
from pathlib import Path
from rankserve.trainer.config import parse_config
from rankserve.trainer.data.loading import load_sources
import pyarrow.parquet

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

document = {"name": "x", "split": [0.98, 0.01, 0.01],
            "sources": [{"kind": "parquet", "name": "t", "licence": "MIT", "path": sys.argv[1]}]}
before = peak()
[source] = load_sources(parse_config(document, origin=Path("x.toml")), Path(sys.argv[2]))
print(json.dumps([before, peak(), len(source.train)]))
"""


def test_texts_do_not_stay_in_memory(tmp_path: Path) -> None:
    """20,000 prompts of 10 kB are 200 MB."""
    schema = pa.schema([("prompt", pa.string()), ("output_tokens", pa.int32())])
    with parquet.ParquetWriter(tmp_path / "t.parquet", schema) as writer:
        for start in range(0, 20_000, 2_000):
            rows = range(start, start + 2_000)
            prompts = [f"{i} " * (10_000 // len(f"{i} ")) for i in rows]
            writer.write_table(pa.table({"prompt": prompts, "output_tokens": [5] * 2_000}, schema=schema))
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path / "t.parquet"), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=True,
    )
    before, peak, trained_on = json.loads(done.stdout)
    assert trained_on > 19_000
    assert peak - before < 170
