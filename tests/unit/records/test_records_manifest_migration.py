"""Manifests of older releases keep their meaning."""

import pytest

from rankserve.records.manifest_migration import SCHEMA_VERSION, NewerSchemaError, migrate


def test_schema_1_gains_what_schema_2_added_and_loses_nothing() -> None:
    document = {"schema": 1, "name": "r", "calibration": None}
    assert migrate(document) == {
        "name": "r",
        "calibration": None,
        "coverage": None,
        "probes": [],
        "optimization": "",
    }
    assert document == {"schema": 1, "name": "r", "calibration": None}


def test_the_present_schema_stays_as_it_is() -> None:
    fields = {"name": "r", "coverage": {"p50": 0.5}, "probes": [], "optimization": "O1"}
    assert migrate({"schema": SCHEMA_VERSION, **fields}) == fields


def test_a_newer_schema_says_to_upgrade() -> None:
    with pytest.raises(
        NewerSchemaError, match=rf"schema {SCHEMA_VERSION + 1} was .* newer release .*: upgrade"
    ):
        migrate({"schema": SCHEMA_VERSION + 1})
