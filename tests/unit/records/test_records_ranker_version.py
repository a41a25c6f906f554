"""A ranker version on disk: complete and undamaged, or refused with what is wrong."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.ranker_folder import edit_manifest, write_version

from rankserve.records.ranker_version import (
    MANIFEST,
    MODEL,
    TOKENIZER,
    Calibration,
    Coverage,
    RankerVersionError,
    ranker_names,
    read_manifest,
    verify_files,
    version_numbers,
)


def test_reads_back_as_it_was_written(tmp_path: Path) -> None:
    manifest = write_version(tmp_path / "r" / "1")
    assert read_manifest(tmp_path / "r" / "1") == manifest
    verify_files(tmp_path / "r" / "1", manifest)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"coverage": {"prompts": 1}}, 'needs "answers"'),
        ({"coverage": []}, "unreadable"),
        ({"probes": [{"prompt": "one", "score": float("nan")}]}, '"score" must be a finite number'),
        ({"probes": [{"prompt": 1, "score": 1.0}]}, '"prompt" must be text'),
        ({"probes": {"one": 1.0}}, "unreadable"),
    ],
)
def test_what_was_measured_at_export_must_be_readable(
    tmp_path: Path, fields: dict[str, object], problem: str
) -> None:
    write_version(tmp_path / "r" / "1")
    edit_manifest(tmp_path / "r" / "1", **fields)
    with pytest.raises(RankerVersionError, match=problem):
        read_manifest(tmp_path / "r" / "1")


def test_coverage_has_both_shares_of_each_group() -> None:
    with pytest.raises(ValueError, match="as many p50 as p90"):
        Coverage(10, 10, 0, 0.5, 0.9, (0.5,), ())


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    manifest = write_version(tmp_path / "r" / "1")
    (tmp_path / "r" / "1" / MODEL).write_bytes(b"other")
    with pytest.raises(RankerVersionError, match=r"model\.onnx is damaged"):
        verify_files(tmp_path / "r" / "1", manifest)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    manifest = write_version(tmp_path / "r" / "1")
    (tmp_path / "r" / "1" / TOKENIZER).unlink()
    with pytest.raises(RankerVersionError, match=r"tokenizer\.json is unreadable"):
        verify_files(tmp_path / "r" / "1", manifest)


def test_a_manifest_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    manifest = write_version(tmp_path / "r" / "1")
    for name in ("../../secret", "a\0b"):
        sneaky = replace(manifest, sha256={**manifest.sha256, name: "0"})
        with pytest.raises(RankerVersionError, match="not a plain file name"):
            verify_files(tmp_path / "r" / "1", sneaky)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "unreadable"),
        ('{"schema": 99}', "schema 99 was written by a newer release .*: upgrade"),
        ('{"schema": 1, "name": "r"}', "unreadable"),
        ('{"name": "r"}', "schema None is not a number"),
        ('{"schema": 0}', "schema 0 is not a number"),
        ('{"schema": true}', "schema True is not a number"),
        ("[]", "unreadable"),
        ("[" * 100_000, "unreadable"),
        ('{"schema": ' + "9" * 5_000 + "}", "unreadable"),
    ],
)
def test_a_bad_manifest_says_what_is_wrong(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(RankerVersionError, match=problem):
        read_manifest(tmp_path)


def test_a_folder_without_a_manifest_is_half_written(tmp_path: Path) -> None:
    with pytest.raises(RankerVersionError, match="half written"):
        read_manifest(tmp_path)


def test_versions_are_counted_as_numbers_and_other_folders_ignored(tmp_path: Path) -> None:
    for name in ("r/2", "r/10", "r/tmp", "r/0", f"r/{2**32}", ".tmp-r/1", "empty"):
        (tmp_path / name).mkdir(parents=True)
    assert version_numbers(tmp_path, "r") == [2, 10]
    assert ranker_names(tmp_path) == ["r"]


@pytest.mark.parametrize("scores", [(), (1.0, 1.0), (2.0, 1.0)])
def test_calibration_knots_must_increase(scores: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="calibration"):
        Calibration(scores, tuple(10.0 for _ in scores), tuple(20.0 for _ in scores))
