"""`rankserve simulate`: what policies do to a workload, in virtual time."""

import json
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankserve.cli.extras import needs_extra

if TYPE_CHECKING:
    from rankserve.cli.simulation.command import Figures

_workload = partial(typer.Option, rich_help_panel="Workload")
_arrivals = partial(typer.Option, rich_help_panel="Arrivals")
_scheduler = partial(typer.Option, rich_help_panel="Scheduler")
_llm = partial(typer.Option, rich_help_panel="Simulated LLM")
_ranker = partial(typer.Option, rich_help_panel="Ranker")


class Preemption(StrEnum):
    """What becomes of the KV cache of an evicted request."""

    OFF = "off"
    RECOMPUTE = "recompute"
    SWAP = "swap"


class KvReservation(StrEnum):
    """How much of an answer's KV cache admission sets aside."""

    NONE = "none"
    PREDICTED = "predicted"
    MAX = "max"


class Format(StrEnum):
    """Of result files."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    JSONL_GZ = "jsonl.gz"


def simulate(
    workload: Annotated[
        Path | None,
        _workload(
            "--workload",
            "-w",
            exists=True,
            dir_okay=False,
            help="JSONL(.gz) of requests or of prompts and lengths, or a trace: CSV(.gz) with arrival_s,"
            " input_tokens and output_tokens.",
        ),
    ] = None,
    synthetic: Annotated[
        int | None, _workload(min=1, metavar="N", help="Simulate N generated prompts instead of a workload.")
    ] = None,
    requests: Annotated[
        int | None, _workload("--requests", "-n", min=1, help="Only the first N of the workload.")
    ] = None,
    repeat_to: Annotated[
        int | None,
        _workload(min=1, metavar="N", help="Repeat the workload, end to end, until it has N requests."),
    ] = None,
    model: Annotated[
        str | None, _workload(help="Whose lengths, where the workload has those of several LLMs.")
    ] = None,
    rate: Annotated[
        float | None, _arrivals("--rate", "-r", help="Poisson arrivals: requests per second.")
    ] = None,
    burst: Annotated[bool, _arrivals("--burst", help="Everything arrives at once.")] = False,
    gamma_cv: Annotated[
        float | None,
        _arrivals(
            metavar="CV", help="With --rate: gaps as variable as this; 1 is Poisson, more is burstier."
        ),
    ] = None,
    on_off: Annotated[
        str | None,
        _arrivals(
            metavar="R:S,R:S", help="Two rates in turn: 60:20,15:40 is 60/s for 20 s, then 15/s for 40 s."
        ),
    ] = None,
    speed: Annotated[
        float, _arrivals(help="Recorded arrivals: their seconds that pass in one simulated second.")
    ] = 1.0,
    seed: Annotated[int, _arrivals(help="Of the arrivals, degraded scores and generated prompts.")] = 0,
    seeds: Annotated[
        int,
        _arrivals(
            min=1,
            metavar="K",
            help="Simulate K seeds from --seed on, and report means with 95 % confidence intervals.",
        ),
    ] = 1,
    policy: Annotated[
        list[str] | None,
        _scheduler(
            "--policy",
            "-p",
            help="Who goes first, as for `rankserve serve`; repeat to compare several. Default: fcfs, the"
            " server's default, and sjf, which knows every answer's length.",
        ),
    ] = None,
    ageing_tokens_per_s: Annotated[
        float,
        _scheduler(min=0, help="aged_ranking: predicted tokens that one second of waiting makes up for."),
    ] = 10.0,
    max_wait_ms: Annotated[
        int | None,
        _scheduler(
            min=1,
            help="Starvation bound: a request that waited this long goes before all of its priority.",
        ),
    ] = None,
    starvation_threshold_steps: Annotated[
        int,
        _scheduler(min=0, help="The paper's bound: promote after this many LLM steps unscheduled; 0 = off."),
    ] = 0,
    starvation_quantum_steps: Annotated[
        int, _scheduler(min=1, help="Steps for which a promoted request is protected from eviction.")
    ] = 10,
    fair_share: Annotated[
        bool, _scheduler(help="Tenants take turns by the tokens they were served; without, they compete.")
    ] = True,
    preemption: Annotated[
        Preemption,
        _scheduler(
            help="Evict running requests for waiting ones that the policy puts far enough ahead; their KV"
            " cache is then computed again, or swapped."
        ),
    ] = Preemption.OFF,
    preemption_margin: Annotated[
        float,
        _scheduler(min=0, help="How many times its cost an eviction must gain; higher means fewer."),
    ] = 1.0,
    kv_reservation: Annotated[
        KvReservation,
        _scheduler(
            help="KV blocks set aside when a request starts: none, for the answer's expected 90th percentile"
            " or for max_tokens. More means fewer evictions and smaller batches."
        ),
    ] = KvReservation.NONE,
    gather_ms: Annotated[
        float,
        _scheduler(
            min=0,
            max=10_000,
            help="How long the first request in an empty queue waits for others to be ordered with. A burst"
            " arrives here at the same instant, so this only shows what the wait costs.",
        ),
    ] = 0.0,
    profile: Annotated[
        str,
        _llm(
            metavar="NAME_OR_PATH",
            help="The LLM and its hardware; `rankserve profile list` lists them. Default: a100-llama3-8b.",
        ),
    ] = "",
    replicas: Annotated[
        int,
        _llm(min=1, help="LLMs that requests are dealt to in turn, each with a queue of its own."),
    ] = 1,
    max_sequences: Annotated[
        int | None, _llm(min=1, help="Batch cap in sequences; default: the profile's.")
    ] = None,
    max_batched_tokens: Annotated[
        int | None, _llm(min=1, help="Batch cap in tokens for one step; default: the profile's.")
    ] = None,
    kv_blocks: Annotated[
        int | None, _llm(min=1, help="KV blocks of 16 tokens; default: the profile's.")
    ] = None,
    repository: Annotated[
        Path | None,
        _ranker(
            "--repository",
            "--ranker-repository",
            help="Folder of ranker versions; default: the ranker that ships with us.",
        ),
    ] = None,
    ranker: Annotated[
        str | None, _ranker(help="Ranker name; default: the repository's active version.")
    ] = None,
    ranker_version: Annotated[int | None, _ranker(help="Its version; default: the newest.")] = None,
    ranker_threads: Annotated[int, _ranker(min=1, help="CPU threads of the ranker.")] = 1,
    score_tau: Annotated[
        float | None,
        _ranker(
            metavar="TAU",
            min=-1,
            max=1,
            help="Instead of a ranker: true lengths made worse until Kendall's tau is this. For traces, which"
            " have no prompts, and to see what a better ranker would gain.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            file_okay=False,
            metavar="DIR",
            help="Write a result file for each policy and seed, for `rankserve report`.",
        ),
    ] = None,
    file_format: Annotated[Format, typer.Option("--format", help="Of the result files.")] = Format.PARQUET,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
) -> None:
    """Simulate a server under several policies, in virtual time: a million requests in seconds.

    The same decisions and the same simulated LLM as `rankserve serve`, without a clock: all times are the
    LLM's own. Without --rate, --burst or --on-off, requests arrive at the times recorded in the workload.

    Try: rankserve simulate --synthetic 2000 --rate 30 --max-sequences 32
    """
    options: dict[str, Any] = {name: value for name, value in locals().items() if name != "as_json"}
    options["format"] = options.pop("file_format").value
    options["policy"] = options["policy"] or []
    with needs_extra("simulate"):
        import pyarrow  # noqa: F401 - for traces and result files; say so before anything is simulated

        from rankserve.cli.simulation.command import SimulateOptions, UsageError, run_command

    def say(text: str) -> None:
        print(f"rankserve simulate: {text}", file=sys.stderr)

    try:
        figures = run_command(SimulateOptions(**options), say)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None
    except (ValueError, OSError) as error:
        say(str(error))
        raise typer.Exit(1) from None
    _print(figures, as_json)


def _print(figures: "Figures", as_json: bool) -> None:
    from rankserve.cli.simulation.figures import render, to_json

    simulation, runs = figures.simulation, figures.runs
    per_s = figures.requests * len(runs) / figures.wall_s
    if as_json:
        described = {
            "workload": simulation.workload_name,
            "requests": figures.requests,
            "profile": simulation.profile.name,
            "replicas": simulation.replicas,
            "wall_s": figures.wall_s,
            "simulated_requests_per_s": per_s,
        }
        print(json.dumps({**described, **to_json(runs)}))
        return
    print(render(runs), end="")
    header = runs[0].header
    print(
        f"\n{simulation.workload_name}: {figures.requests:,} requests; {simulation.profile.name}, batch cap"
        f" {header.max_sequences} sequences and {header.max_batched_tokens} tokens,"
        f" {header.kv_blocks:,} KV blocks, {_count(simulation.replicas, 'replica')}"
    )
    took = f"{_count(len(runs), 'run')} in {figures.wall_s:.3g} s, evaluation included"
    print(f"{took}: {per_s:,.0f} requests/s")
    for run in runs:
        if run.file is not None:
            print(f"wrote {run.file}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
