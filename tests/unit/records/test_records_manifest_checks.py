"""A manifest that can be read may still say what no server can use; the command line asks the same checks."""

import json
import os
from dataclasses import fields
from pathlib import Path

import pytest
from support.ranker_folder import edit_manifest, write_version
from typer.testing import CliRunner, Result

from rankserve.cli.models import models_app
from rankserve.records.active_pointer import read_active
from rankserve.records.manifest_checks import read_version
from rankserve.records.ranker_version import MANIFEST, MODEL, TOKENIZER, RankerManifest, RankerVersionError

NAN = float("nan")
DAMAGES: dict[str, tuple[dict[str, object], str]] = {
    "sums are a list": ({"sha256": []}, "no sha256"),
    "no sums": ({"sha256": None}, "no sha256"),
    "a sum is a number": ({"sha256": {MODEL: 1}}, "no sha256"),
    "lists no model": ({"sha256": {}}, "lists no model.onnx"),
    "lists a path": ({"sha256": {MODEL: "", TOKENIZER: "", "../x": ""}}, "damaged"),
    "length in words": ({"max_length": "12"}, "max_length '12'"),
    "no length limit": ({"max_length": 10**30}, "max_length 1000"),
    "neutral overflows": ({"neutral_score": 10**400}, "neutral_score 1000"),
    "neutral NaN": ({"neutral_score": NAN}, "neutral_score nan"),
    "pad token": ({"pad_token_id": -1}, "pad_token_id -1"),
    "truncation side": ({"truncation_side": "top"}, "truncation_side 'top'"),
    "calibration NaN": (
        {"calibration": {"scores": [0.0], "tokens_p50": [NAN], "tokens_p90": [1.0]}},
        "calibration",
    ),
    "calibration's p50 above its p90": (
        {"calibration": {"scores": [0.0, 1.0], "tokens_p50": [9.0, 8.0], "tokens_p90": [9.0, 7.0]}},
        "p50 (8 tokens) is above its p90 (7) at score 1",
    ),
    "calibration's p50 rises": (
        {"calibration": {"scores": [0.0, 1.0], "tokens_p50": [5.0, 6.0], "tokens_p90": [9.0, 8.0]}},
        "p50 rises from 5 to 6 tokens",
    ),
    "calibration's p90 rises": (
        {"calibration": {"scores": [0.0, 1.0], "tokens_p50": [5.0, 5.0], "tokens_p90": [8.0, 9.0]}},
        "p90 rises from 8 to 9 tokens",
    ),
    "calibration below zero": (
        {"calibration": {"scores": [0.0, 1.0], "tokens_p50": [5.0, -1.0], "tokens_p90": [8.0, 8.0]}},
        "p50 is negative (-1 tokens)",
    ),
    "coverage beyond 1": (
        {
            "coverage": {
                "prompts": 1,
                "answers": 1,
                "censored": 0,
                "p50": 1.5,
                "p90": 0.9,
                "p50_by_score": [],
                "p90_by_score": [],
            }
        },
        "coverage",
    ),
    "optimization is a number": ({"optimization": 2}, "optimization"),
    "metrics in words": ({"metrics": {"kendall_tau": "high"}}, "metrics"),
    "no metrics": ({"metrics": None}, "metrics"),
    "metrics are a list": ({"metrics": [1]}, "metrics"),
    "a metric NaN": ({"metrics": {"kendall_tau": NAN}}, "metrics"),
    "packages are a list": ({"versions": ["torch"]}, "versions"),
    "a package's version is a number": ({"versions": {"torch": 2}}, "versions"),
    "training data are numbers": ({"training_data": [1, {}]}, "training_data"),
    "version is text": ({"version": "1"}, "names itself r/1"),
    "version is true": ({"version": True}, "names itself r/True"),
    "precision is a number": ({"precision": 8}, "precision"),
    "another's manifest": ({"version": 9}, "names itself r/9"),
    "unknown field": ({"colour": "red"}, "unreadable"),
}


def models(*arguments: object) -> Result:
    return CliRunner().invoke(models_app, [str(argument) for argument in arguments])


def test_a_usable_version_passes(tmp_path: Path) -> None:
    manifest = write_version(tmp_path / "r" / "1")
    assert read_version(tmp_path / "r" / "1") == manifest
    shown = models("activate", "r", "--repository", tmp_path)
    assert shown.exit_code == 0, shown.output
    assert read_active(tmp_path) == ("r", 1)


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_no_server_can_use_is_refused_listed_and_not_activated(tmp_path: Path, damage: str) -> None:
    fields, problem = DAMAGES[damage]
    folder = tmp_path / "r" / "1"
    write_version(folder)
    edit_manifest(folder, **fields)
    with pytest.raises(RankerVersionError) as refusal:
        read_version(folder)
    assert problem in str(refusal.value)
    listed = json.loads(models("list", "--repository", tmp_path, "--json").stdout)
    assert [version["problem"] for version in listed["versions"]] == [str(refusal.value)]
    shown = models("activate", "r", 1, "--repository", tmp_path)
    assert shown.exit_code == 1
    assert problem in shown.stderr
    assert read_active(tmp_path) is None
    for as_json in ([], ["--json"]):
        shown = models("show", "r", "--repository", tmp_path, *as_json)
        assert (shown.exit_code, type(shown.exception)) == (1, SystemExit)
        assert problem in shown.stderr


@pytest.mark.parametrize("field", [field.name for field in fields(RankerManifest)])
def test_a_field_that_is_missing_is_an_error_or_has_a_default(tmp_path: Path, field: str) -> None:
    folder = tmp_path / "r" / "1"
    write_version(folder)
    document = json.loads((folder / MANIFEST).read_text())
    del document[field]
    (folder / MANIFEST).write_text(json.dumps(document))
    listed = json.loads(models("list", "--repository", tmp_path, "--json").stdout)
    problem = listed["versions"][0]["problem"]
    assert problem == "" or field in problem


def test_versions_that_the_api_cannot_name_are_not_offered(tmp_path: Path) -> None:
    for version in (0, 1, 2**32):
        write_version(tmp_path / "r" / str(version))
    listed = json.loads(models("list", "--repository", tmp_path, "--json").stdout)
    assert [version["version"] for version in listed["versions"]] == [1]
    assert models("activate", "r", 2**32, "--repository", tmp_path).exit_code == 1
    assert models("activate", "r", "--repository", tmp_path).exit_code == 0
    assert read_active(tmp_path) == ("r", 1)


@pytest.mark.parametrize("file", [MANIFEST, MODEL])
def test_a_pipe_keeps_nobody_waiting(tmp_path: Path, file: str) -> None:
    folder = tmp_path / "r" / "1"
    write_version(folder)
    (folder / file).unlink()
    os.mkfifo(folder / file)
    # To read it would wait for a writer for ever, and so would this test.
    with pytest.raises(RankerVersionError, match=r"unreadable .*not a regular file"):
        read_version(folder)
