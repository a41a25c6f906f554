"""`rankserve report`: compare result files."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from rankserve.cli.extras import needs_extra
from rankserve.progress import stage, track


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            exists=True,
            dir_okay=False,
            help="Result files of `rankserve load` or `simulate`.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the report; .html, .md, .json or .txt says the format."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Compare runs with the first FCFS run among them: latency, improvement ratio, Kendall's tau, plots."""
    with needs_extra("load"):
        from rankserve.client.evaluation import build_report, read_columns, write_report
        from rankserve.client.evaluation.as_json import render as render_json
        from rankserve.client.evaluation.as_text import render as render_text
    from rankserve.records.jsonl import RecordError

    try:
        with needs_extra("simulate"):
            results = [read_columns(path) for path in track(runs, "reading results", "files")]
        with stage("comparing"):
            written = build_report(results) if output is None else write_report(output, results)
    except (RecordError, ValueError, OSError) as error:
        print(f"rankserve report: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    print(render_json(written) if as_json else render_text(written), end="")
    if output is not None:
        print(f"wrote {output}", file=sys.stderr)
