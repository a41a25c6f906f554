"""`rankserve models list`."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from rankserve.cli.ranker_versions.options import (
    DEFAULT_REPOSITORY,
    AsJson,
    Repository,
    refusals,
    tell_active_is_gone,
    text,
)
from rankserve.records.active_pointer import read_active
from rankserve.records.manifest_checks import read_version
from rankserve.records.ranker_version import RankerVersionError, ranker_names, version_numbers


@dataclass(slots=True, frozen=True)
class _Row:
    name: str
    version: int
    active: bool
    kendall_tau: float | None = None
    precision: str = ""
    base_model: str = ""
    created_at: str = ""
    problem: str = ""


def list_models(repository: Repository = DEFAULT_REPOSITORY, as_json: AsJson = False) -> None:
    """Show every version of a repository, damaged ones with what is wrong. `*` marks the active one."""
    with refusals():
        active = read_active(repository)
        rows = [
            _row(repository, name, version, active == (name, version))
            for name in ranker_names(repository)
            for version in version_numbers(repository, name)
        ]
    if as_json:
        pointer = None if active is None else text(active)
        typer.echo(json.dumps({"active": pointer, "versions": [asdict(row) for row in rows]}))
    else:
        typer.echo("\n".join(_lines(repository, rows)))
    if active is not None and not any(row.active for row in rows):
        tell_active_is_gone(active)
        raise typer.Exit(1)


def _lines(repository: Path, rows: list[_Row]) -> Iterator[str]:
    if not rows:
        yield f"{repository} holds no ranker version; `rankserve export` publishes one"
    for row in rows:
        tau = "" if row.kendall_tau is None else f"tau {row.kendall_tau:.3f}"
        marker = "*" if row.active else " "
        what = row.problem or f"{row.precision}  {tau}  {row.created_at}"
        yield f"{marker} {row.name}/{row.version}  {what}"


def _row(repository: Path, name: str, version: int, active: bool) -> _Row:
    try:
        manifest = read_version(repository / name / str(version))
    except RankerVersionError as error:
        return _Row(name, version, active, problem=str(error))
    return _Row(
        name,
        version,
        active,
        kendall_tau=manifest.metrics.get("kendall_tau"),
        precision=manifest.precision,
        base_model=manifest.base_model,
        created_at=manifest.created_at,
    )
