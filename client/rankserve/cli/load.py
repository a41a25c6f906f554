"""`rankserve load`: send a workload to a server and measure what comes back."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankserve.cli.connection_options import Connection, with_connection_options
from rankserve.cli.extras import needs_extra

if TYPE_CHECKING:
    from rankserve.client.load import Arrivals
    from rankserve.records.workload import WorkloadRecord


@with_connection_options
def load(
    connect: Callable[[], Connection],
    workload: Annotated[
        Path | None,
        typer.Option(
            "--workload",
            "-w",
            exists=True,
            dir_okay=False,
            help="JSONL(.gz) of requests, or prompts and lengths.",
        ),
    ] = None,
    synthetic: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Send N generated prompts instead of a workload.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", "-r", help="Poisson arrivals: requests per wall-clock second.")
    ] = None,
    burst: Annotated[bool, typer.Option("--burst", help="Send everything at once.")] = False,
    gamma_cv: Annotated[
        float | None,
        typer.Option(
            metavar="CV", help="With --rate: gaps as variable as this; 1 is Poisson, more is burstier."
        ),
    ] = None,
    on_off: Annotated[
        str | None,
        typer.Option(
            metavar="R:S,R:S", help="Two rates in turn: 60:20,15:40 is 60/s for 20 s, then 15/s for 40 s."
        ),
    ] = None,
    speed: Annotated[
        float, typer.Option(help="Recorded arrivals: their seconds that pass in one wall-clock second.")
    ] = 1.0,
    requests: Annotated[
        int | None, typer.Option("--requests", "-n", min=1, help="Send only the first N of the workload.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Whose lengths, where the workload has those of several LLMs.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the arrivals and the generated prompts.")] = 0,
    replay: Annotated[
        bool,
        typer.Option(help="Ask for the recorded lengths; the server must run with --replay."),
    ] = True,
    token_events: Annotated[
        bool, typer.Option("--token-events", help="Stream tokens, for client-side first-token times.")
    ] = False,
    chat: Annotated[
        bool, typer.Option("--chat", help="Send prompts as chats, so that a real LLM applies its template.")
    ] = False,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer to ask for, where the workload does not say.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, max=10, help="Of the sampling.", show_default="the LLM's")
    ] = None,
    streams: Annotated[int, typer.Option(min=1, help="Streams to spread the requests over.")] = 1,
    request_timeout_s: Annotated[
        float | None, typer.Option(help="Give a request up this long after it was sent.")
    ] = None,
    total_timeout_s: Annotated[
        float | None, typer.Option(help="Give everything up this long after the start.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the results as JSONL, for `rankserve report`."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
) -> None:
    """Send requests at planned times, however slowly they are answered, and print latencies and tau.

    Without --rate, --burst or --on-off, requests are sent at the times recorded in the workload. Latencies
    are in the LLM's own seconds: wall clock times the server's time scale. With several targets, what a
    replica cannot serve goes to another, and queue depths are those of any one. Exit status 1 if any request
    failed.
    """
    with needs_extra("load"):
        from rankserve.client.evaluation import build_report
        from rankserve.client.evaluation.as_json import to_json
        from rankserve.client.evaluation.as_text import render_run
    import asyncio

    from rankserve.cli.arrival_options import drawn_arrivals
    from rankserve.client import AsyncSchedulerClient, RankServeError, Retry
    from rankserve.client.load import LoadOptions, run_load
    from rankserve.records.jsonl import RecordError
    from rankserve.records.results import Run, write_run

    async def send() -> Run:
        async with AsyncSchedulerClient(to.target, tls=to.tls, token=to.token) as client:
            return await run_load(client, records, arrivals, options)

    try:
        to = connect()
        records, name = _workload(workload, synthetic, requests, model, seed)
        drawn = drawn_arrivals(rate=rate, burst=burst, gamma_cv=gamma_cv, on_off=on_off, seed=seed)
        arrivals = drawn or _recorded(records, speed)
        options = LoadOptions(
            replay=replay,
            result_only=not token_events,
            streams=streams,
            request_timeout_s=request_timeout_s,
            total_timeout_s=total_timeout_s,
            workload_name=name,
            retry=None if isinstance(to.target, str) else Retry(),
            chat=chat,
            max_tokens=max_tokens,
            temperature=temperature,
        )
        run = asyncio.run(send())
        if output is not None:
            write_run(output, run.header, run.results)
    except (RecordError, RankServeError, ValueError, OSError) as error:
        print(f"rankserve load: {error}", file=sys.stderr)
        raise typer.Exit(1) from None

    report = build_report([run])
    metrics = report.columns[0].metrics
    if as_json:
        print(json.dumps({"target": to.target, **to_json(report)["runs"][0]}))
    else:
        print(render_run(metrics), end="")
    for outcome, message in sorted({result.outcome: result.error for result in run.results}.items()):
        if message:
            print(f"rankserve load: {outcome}: {message}", file=sys.stderr)
    if metrics.failed:
        raise typer.Exit(1)


def _workload(
    path: Path | None, synthetic: int | None, requests: int | None, model: str | None, seed: int
) -> "tuple[list[WorkloadRecord], str]":
    """The records to send, and the workload's name."""
    from rankserve.cli.synthetic import synthetic_workload
    from rankserve.records.workload import read_workload

    if (path is None) == (synthetic is None):
        raise typer.BadParameter("say either --workload FILE or --synthetic N")
    if path is not None:
        return list(read_workload(path, model=model, limit=requests)), path.name
    count = min(synthetic or 0, requests or synthetic or 0)
    return synthetic_workload(count, seed)


def _recorded(records: "list[WorkloadRecord]", speed: float) -> "Arrivals":
    from rankserve.client.load import Recorded

    if any(record.arrival_s is None for record in records):
        raise typer.BadParameter(
            "the workload records no arrival times: say --rate R or --burst or --on-off R:S,R:S"
        )
    return Recorded(speed)
