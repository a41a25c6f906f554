"""`rankserve models prune`: old versions go, what is in use stays."""

import json
from typing import Annotated

import typer

from rankserve.cli.ranker_versions.options import (
    DEFAULT_REPOSITORY,
    AsJson,
    Repository,
    refusals,
    size,
    text,
)
from rankserve.records.pruning import DEFAULT_KEEP, plan_pruning
from rankserve.records.pruning import prune as prune_repository


def prune(
    repository: Repository = DEFAULT_REPOSITORY,
    name: Annotated[str | None, typer.Option("--name", "-n", help="Only this ranker's versions.")] = None,
    keep: Annotated[
        int, typer.Option("--keep", "-k", min=1, help="Usable versions to keep of each name, the newest.")
    ] = DEFAULT_KEEP,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete old versions, but never the active one nor the one that `rollback` goes to.

    Safe beside exporters and when killed in the middle: the next prune deletes what was left, also by a
    killed export.

    Servers keep what they have loaded; what one is started with by --ranker-version is not known here.
    """
    with refusals():
        act = plan_pruning if dry_run else prune_repository
        pruned = act(repository, keep=keep, name=name)
    if as_json:
        document = {
            "removed": [text(reference) for reference in pruned.removed],
            "freed_bytes": pruned.freed_bytes,
            "undeleted": [str(path) for path in pruned.undeleted],
            "dry_run": dry_run,
        }
        typer.echo(json.dumps(document))
    else:
        for reference in pruned.removed:
            typer.echo(f"{'would remove' if dry_run else 'removed'} {text(reference)}")
        typer.echo(
            f"{len(pruned.removed)} versions, {size(pruned.freed_bytes)}"
            + (" (nothing was deleted)" if dry_run else "")
        )
    if pruned.undeleted:
        left = ", ".join(map(str, pruned.undeleted))
        typer.echo(f"error: not deleted: {left}; check the permissions and prune again", err=True)
        raise typer.Exit(1)
