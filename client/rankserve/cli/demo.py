"""`rankserve demo`: what the ordering gains, on this machine, in about a minute."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankserve.cli.extras import needs_extra
from rankserve.progress import stage

if TYPE_CHECKING:
    from rankserve.client.evaluation import Report
    from rankserve.client.evaluation.content import Column

POLICIES = ("fcfs", "ranking", "bounded_ranking", "sjf")


def demo(
    requests: Annotated[int, typer.Option(min=20, max=20_000, help="Requests to send to each policy.")] = 600,
    rate: Annotated[
        float, typer.Option(help="Poisson arrivals, requests per second of the simulated LLM's time.")
    ] = 25.0,
    max_sequences: Annotated[int, typer.Option(min=1, help="Batch cap of the simulated LLM.")] = 32,
    profile: Annotated[str, typer.Option(help="Which LLM to simulate.")] = "a100-llama3-8b",
    time_scale: Annotated[float, typer.Option(help="Simulated seconds that pass in one of ours.")] = 4.0,
    seed: Annotated[int, typer.Option(help="Of the prompts and the arrivals.")] = 0,
    repository: Annotated[
        Path | None, typer.Option(help="Ranker versions to use instead of the one that ships with us.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the HTML report.")] = Path(
        "demo-report.html"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Show what ranking gains over first come, first served: a real server, a simulated LLM, one minute.

    Sends the same generated prompts, worded unlike any the ranker was trained on, to four servers: FCFS,
    ranking with the ranker that ships with RankServe, the same with the default bound on waiting, and an
    oracle that knows every answer's length. Needs no network, no GPU and no data.
    """
    with needs_extra("load,server"):
        import rankserve.server.app  # noqa: F401 - the servers need it; say so before they start
        from rankserve.client.evaluation import write_report
        from rankserve.client.load import Poisson
    from rankserve.cli.policy_runs import ServerProcessError, run_policies
    from rankserve.cli.synthetic import synthetic_workload

    workload, name = synthetic_workload(requests, seed)
    server_options = {
        "max_sequences": max_sequences,
        "profile": profile,
        "time_scale": time_scale,
        "repository": repository,
        "seed": seed,
    }
    try:
        runs = run_policies(
            POLICIES,
            workload,
            Poisson(rate * time_scale, seed),
            server_options,
            workload_name=name,
        )
        with stage("writing the report"):
            report = write_report(output, runs)
    except (ServerProcessError, ValueError, OSError) as error:
        print(f"rankserve demo: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    problems = _problems(report)
    if as_json:
        print(json.dumps(_as_json(report, output, problems)))
    else:
        _print(report, output)
    for problem in problems:
        print(f"rankserve demo: {problem}", file=sys.stderr)
    if problems:
        raise typer.Exit(1)


def _problems(report: "Report") -> list[str]:
    from rankserve.client.evaluation.content import MAX_ENGINE_LAG

    problems = []
    for column in report.columns:
        if column.metrics.failed:
            problems.append(f"{column.label}: {column.metrics.failed} requests failed")
        if column.metrics.engine_lag > MAX_ENGINE_LAG:
            problems.append(
                f"{column.label}: the simulated LLM fell {column.metrics.engine_lag:.0%} behind its clock:"
                " this machine is too busy or too slow; try a smaller --time-scale"
            )
    return problems


def _as_json(report: "Report", output: Path, problems: list[str]) -> dict[str, object]:
    from rankserve.client.evaluation.as_json import to_json

    ranking = report.columns[POLICIES.index("ranking")]
    return {
        **_ratios(ranking),
        "kendall_tau": ranking.metrics.kendall_tau,
        "kendall_tau_ceiling": ranking.metrics.kendall_tau_ceiling,
        "problems": problems,
        "report": str(output),
        **to_json(report),
    }


def _ratios(column: "Column") -> dict[str, float | None]:
    """What was gained over FCFS; None where no request finished under both."""
    names = ("improvement_ratio", "improvement_ratio_normalised", "improvement_ratio_p99")
    return {name: getattr(column.comparison, name, None) for name in names}


def _print(report: "Report", output: Path) -> None:
    from rankserve.client.evaluation.as_text import render
    from rankserve.client.evaluation.tables import number, tau

    print(render(report), end="")
    print("\nImprovement over FCFS (mean E2E latency, mean latency per token, p99 E2E):")
    for policy in ("ranking", "bounded_ranking"):
        column = report.columns[POLICIES.index(policy)]
        print(f"  {policy:15} {', '.join(map(number, _ratios(column).values()))}")
    metrics = report.columns[POLICIES.index("ranking")].metrics
    print(f"Kendall's tau {tau(metrics.kendall_tau)}, ceiling {tau(metrics.kendall_tau_ceiling)}")
    print(f"report: {output.resolve().as_uri()}")
