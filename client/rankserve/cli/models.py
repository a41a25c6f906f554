"""`rankserve models`: what a repository of ranker versions holds, and which version is active."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from rankserve.records.active_pointer import read_active, write_active
from rankserve.records.manifest_checks import read_version
from rankserve.records.ranker_version import (
    RankerVersionError,
    ranker_names,
    version_numbers,
)

models_app = typer.Typer(help="List and activate ranker versions.", no_args_is_help=True)

Repository = Annotated[
    Path, typer.Option("--repository", "-r", exists=True, file_okay=False, help="Folder of ranker versions.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


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


@models_app.command("list")
def list_models(repository: Repository = Path("models"), as_json: AsJson = False) -> None:
    """Show every version of a repository, damaged ones with what is wrong."""
    try:
        active = read_active(repository)
        rows = [
            _row(repository, name, version, active == (name, version))
            for name in ranker_names(repository)
            for version in version_numbers(repository, name)
        ]
    except (RankerVersionError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        pointer = None if active is None else "{}/{}".format(*active)
        typer.echo(json.dumps({"active": pointer, "versions": [asdict(row) for row in rows]}))
        return
    if not rows:
        typer.echo(f"{repository} holds no ranker version; `rankserve export` publishes one")
    for row in rows:
        tau = "" if row.kendall_tau is None else f"tau {row.kendall_tau:.3f}"
        marker = "*" if row.active else " "
        typer.echo(
            f"{marker} {row.name}/{row.version}  {row.problem or f'{row.precision}  {tau}  {row.created_at}'}"
        )
    if active is not None and not any(row.active for row in rows):
        typer.echo("error: the active version {}/{} is not there".format(*active), err=True)
        raise typer.Exit(1)


@models_app.command()
def activate(
    name: Annotated[str, typer.Argument(help="The ranker's name.")],
    version: Annotated[int | None, typer.Argument(min=1, help="Its version; default: the newest.")] = None,
    repository: Repository = Path("models"),
    as_json: AsJson = False,
) -> None:
    """Check a version's files and make it the one that servers started from now on use.

    A running server changes over with the ActivateRankerVersion call.
    """
    try:
        there = version_numbers(repository, name) if name in ranker_names(repository) else []
        chosen = version if version is not None else max(there, default=0)
        if chosen not in there:
            raise RankerVersionError(
                f"{repository} holds no {name}/{version or 'version'}; see `models list`"
            )
        read_version(repository / name / str(chosen))
        write_active(repository, name, chosen)
    except (RankerVersionError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(json.dumps({"active": f"{name}/{chosen}"}) if as_json else f"{name}/{chosen} is active")


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
