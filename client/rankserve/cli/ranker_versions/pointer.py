"""`rankserve models activate` and `rollback`: which version servers start with."""

import json
from typing import Annotated

import typer

from rankserve.cli.ranker_versions.options import (
    DEFAULT_REPOSITORY,
    AsJson,
    Repository,
    Version,
    chosen,
    refusals,
    text,
)
from rankserve.records.active_pointer import roll_back, write_active
from rankserve.records.manifest_checks import read_version


def activate(
    name: Annotated[str, typer.Argument(help="The ranker's name, or name/version.")],
    version: Version = None,
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: AsJson = False,
) -> None:
    """Check a version's files and make it the one that servers started from now on use.

    A running server changes over with the ActivateRankerVersion call.
    """
    with refusals():
        reference = chosen(repository, name, version)
        read_version(repository / reference[0] / str(reference[1]))
        write_active(repository, *reference)
    typer.echo(json.dumps({"active": text(reference)}) if as_json else f"{text(reference)} is active")


def rollback(repository: Repository = DEFAULT_REPOSITORY, as_json: AsJson = False) -> None:
    """Go back to the version that was active before; once more goes back further.

    Its files are checked first. A running server changes over with the ActivateRankerVersion call.
    """
    with refusals():
        before, now = roll_back(repository, read_version)
    if as_json:
        typer.echo(json.dumps({"active": text(now), "before": text(before)}))
    else:
        typer.echo(f"{text(now)} is active, {text(before)} was")
