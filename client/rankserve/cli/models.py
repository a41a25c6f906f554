"""`rankserve models`: what a repository of ranker versions holds, and which version is active."""

import typer

from rankserve.cli.ranker_versions.listing import list_models
from rankserve.cli.ranker_versions.pointer import activate, rollback
from rankserve.cli.ranker_versions.prune import prune
from rankserve.cli.ranker_versions.show import show
from rankserve.cli.ranker_versions.verify import verify

__all__ = ["models_app"]

models_app = typer.Typer(
    help="Look after ranker versions: list, show, verify, activate, roll back, prune.", no_args_is_help=True
)
models_app.command("list")(list_models)
models_app.command()(show)
models_app.command()(verify)
models_app.command()(activate)
models_app.command()(rollback)
models_app.command()(prune)
