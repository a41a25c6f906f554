"""Manifests of older releases, brought to the schema of this one; the files on disk stay as they are."""

from collections.abc import Callable
from typing import Any

from rankserve.records.json_values import is_integer

Document = dict[str, Any]


class NewerSchemaError(ValueError):
    """A manifest that a newer release of RankServe wrote."""


def migrate(document: Document) -> Document:
    """The manifest's fields as this release names them, without ``schema``.

    Args:
        document: a ``ranker.json`` of any release.

    Raises:
        NewerSchemaError: this release cannot know what it means.
        ValueError: it states no schema.
    """
    fields = dict(document)
    schema = fields.pop("schema", None)
    if not is_integer(schema) or schema < 1:
        raise ValueError(f"schema {schema!r:.40} is not a number from 1")
    if schema > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"schema {schema} was written by a newer release of RankServe and this one reads up to "
            f"{SCHEMA_VERSION}: upgrade with `pip install --upgrade rankserve`, or export the ranker again "
            "with this release"
        )
    for step in _STEPS[schema - 1 :]:
        fields = step(fields)
    return fields


def _from_1_to_2(fields: Document) -> Document:
    """Schema 2 added what was measured and recorded at export; versions of schema 1 have none of it."""
    return {**fields, "coverage": None, "probes": [], "optimization": ""}


# The step at index n reads schema n + 1.
_STEPS: tuple[Callable[[Document], Document], ...] = (_from_1_to_2,)
SCHEMA_VERSION = len(_STEPS) + 1
