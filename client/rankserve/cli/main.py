"""The `rankserve` command. One file a command; what a command needs is imported when it runs."""

import sys

import typer

from rankserve.cli.admin import admin_app
from rankserve.cli.collect import collect
from rankserve.cli.demo import demo
from rankserve.cli.evaluate import evaluate
from rankserve.cli.export import export
from rankserve.cli.fake_engine import fake_engine
from rankserve.cli.health import health
from rankserve.cli.load import load
from rankserve.cli.models import models_app
from rankserve.cli.profile import profile_app
from rankserve.cli.proxy import proxy
from rankserve.cli.report import report
from rankserve.cli.serve import serve
from rankserve.cli.simulate import simulate
from rankserve.cli.train import train
from rankserve.progress import report_on


def _report(context: typer.Context) -> None:
    # For every command, as long as it runs.
    context.with_resource(report_on(sys.stderr))


app = typer.Typer(
    callback=_report,
    help="Serve LLM requests in the order of their predicted output length.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(collect)
app.command()(train)
app.command()(evaluate)
app.command()(export)
app.add_typer(models_app, name="models")
app.command()(serve)
app.command()(proxy)
app.command()(health)
app.add_typer(admin_app, name="admin")
app.command()(load)
app.command()(simulate)
app.command()(report)
app.command()(fake_engine)
app.add_typer(profile_app, name="profile")
