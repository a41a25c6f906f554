"""The `rankserve` command. One file a command; what a command needs is imported when it runs."""

import typer

from rankserve.cli.serve import serve

app = typer.Typer(
    help="Serve LLM requests in the order of their predicted output length.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve)


@app.callback()
def _main() -> None:
    pass
