"""How many requests a second the simulation gets through, beside Vidur on the same trace in the same run.

Both simulate one replica of Llama-3-8B on an A100 under continuous batching with chunked prefill and paged
KV: the lengths of the first 5,000 requests of azure2023_conv, Poisson arrivals from a seed. Batch cap, tokens
a step, KV blocks and their size are the same. Vidur runs FCFS under its Sarathi scheduler; ours runs FCFS,
and ranking with scores and a wait bound, so that promotions happen.

Vidur's time is that of its event loop alone, with its metrics kept in memory as it ships ("recording"; plots
and traces are off) and without ("bare"). Ours is the whole call and writing the result records to a file.
Rounds of all of them take turns, medians count. `ratio` is the slower of our policies to Vidur recording,
since ours records too; the ratio to Vidur bare stands beside it. CPU seconds show what a busy machine adds.

    git clone https://github.com/microsoft/vidur DIR
    python benchmarks/simulation_speed.py --vidur DIR                    # the first time: a few minutes
    python benchmarks/simulation_speed.py --vidur DIR --vidur-python PY  # with an environment you have
    python benchmarks/simulation_speed.py --million                      # ours alone, a million requests

Vidur gets an environment of its own, made with pip in --cache at the first use. Where its attention table is
missing or a Git LFS pointer, a stand-in from a roofline estimate is used, and the output says so: it changes
the simulated step times, not what it costs to simulate a step. Needs `pip install '.[server]'`.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from rankserve.client.load.machine import describe_machine
from rankserve.progress import report_on, stage, tell, track
from rankserve.records.result_columns import write_run_columns
from rankserve.records.results import RunHeader
from rankserve.server.engines.simulated.profiles import find_profile
from rankserve.server.scheduling.policies import make_policy
from rankserve.server.scheduling.starvation import StarvationSettings
from rankserve.server.simulation.columns import columns
from rankserve.server.simulation.outcome import Outcome as Simulated
from rankserve.server.simulation.setup import SimulationSettings
from rankserve.server.simulation.simulator import simulate

ROOT = Path(__file__).resolve().parents[1]
TRACE = ROOT.parent / "shared" / "data" / "traces" / "azure2023_conv.csv.gz"
PROFILE = "a100-llama3-8b"
VIDUR_NEEDS = ("numpy", "pandas", "scikit-learn", "wandb", "ddsketch", "plotly_express", "fasteners")
RECORDING, BARE = "recording", "bare"
VIDUR_VARIANTS = (RECORDING, BARE)
POLICIES = ("fcfs", "ranking")
MILLION = 1_000_000

Numbers = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(slots=True, frozen=True)
class Trace:
    """Requests in order of arrival, each array of shape [requests]."""

    ids: list[str]
    arrivals_s: Numbers
    input_tokens: Integers
    output_tokens: Integers
    scores: Numbers

    def __len__(self) -> int:
        return len(self.arrivals_s)


@dataclass(slots=True, frozen=True)
class Outcome:
    """What one simulation did. `seconds` are of the wall clock, arrays in simulated seconds, [requests]."""

    seconds: float
    cpu_seconds: float
    steps: int
    preemptions: int
    promotions: int
    started_s: Numbers
    first_token_s: Numbers
    completed_s: Numbers


def main() -> None:
    options = parse_options()
    if not options.trace.exists():
        sys.exit(f"no trace at {options.trace}: say where azure2023_conv.csv.gz is with --trace")
    if not (options.vidur or options.million):
        sys.exit(
            "give --million, or --vidur with a checkout of it (git clone https://github.com/microsoft/vidur)"
        )
    if options.vidur and not (options.vidur / "vidur" / "simulator.py").exists():
        sys.exit(f"{options.vidur} is no checkout of Vidur (git clone https://github.com/microsoft/vidur)")
    results: dict[str, Any] = {"machine": describe_machine(), "settings": describe(options)}
    if options.vidur:
        results |= compare(options)
    if options.million:
        with stage("a million requests"):
            results["million"] = million(options)
    if options.json:
        print(json.dumps(results))
    else:
        show(results)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vidur", type=Path, help="a checkout of Vidur; nothing is written there")
    parser.add_argument("--vidur-python", type=Path, help="a Python that can import what Vidur needs")
    parser.add_argument(
        "--cache", type=Path, default=ROOT / "out" / "vidur", help="Vidur's environment and predictions"
    )
    parser.add_argument("--million", action="store_true", help="ours alone on a million resampled requests")
    parser.add_argument("--trace", type=Path, default=TRACE, help="azure2023_conv.csv.gz")
    parser.add_argument("--requests", type=int, default=5000, help="of the trace, from its start")
    parser.add_argument("--rate", type=float, default=20.0, help="arrivals per simulated second")
    parser.add_argument("--batch-cap", type=int, default=128, help="sequences a step")
    parser.add_argument("--token-budget", type=int, default=512, help="tokens a step")
    parser.add_argument("--kv-blocks", type=int, default=find_profile(PROFILE).kv_blocks)
    parser.add_argument("--max-wait", type=float, default=60.0, help="wait bound of ours, simulated seconds")
    parser.add_argument("--rounds", type=int, default=3, help="runs of Vidur")
    parser.add_argument("--repeats", type=int, default=5, help="runs of ours in each round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def describe(options: argparse.Namespace) -> dict[str, Any]:
    profile = find_profile(PROFILE)
    return {
        "profile": profile.name,
        "requests": options.requests,
        "rate": options.rate,
        "seed": options.seed,
        "batch_cap": options.batch_cap,
        "token_budget": options.token_budget,
        "kv_blocks": options.kv_blocks,
        "block_size": profile.block_size,
        "max_wait_s": options.max_wait,
        "rounds": options.rounds,
        "repeats_a_round": options.repeats,
    }


def read_trace(options: argparse.Namespace, count: int) -> Trace:
    """The trace's first lengths; resampled where more are asked for than --requests."""
    lengths = np.loadtxt(options.trace, delimiter=",", skiprows=1, usecols=(1, 2), dtype=np.int64)
    lengths = np.maximum(lengths[: options.requests], 1)
    generator = np.random.default_rng(options.seed)
    arrivals_s = np.cumsum(generator.exponential(1 / options.rate, count))
    if count > len(lengths):
        lengths = generator.choice(lengths, count)
    lengths = lengths[:count]
    # As a middling ranker scores: the logarithm of the length, and noise as wide as that varies.
    log_output = np.log(lengths[:, 1])
    scores = -(log_output + generator.normal(scale=log_output.std(), size=count))
    ids = [f"request-{number}" for number in range(count)]
    return Trace(ids, arrivals_s, lengths[:, 0].copy(), lengths[:, 1].copy(), scores)


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Both sides on the same trace, taking turns."""
    trace = read_trace(options, options.requests)
    # Not resolved: a virtual environment's Python is a link.
    python = (options.vidur_python or vidur_environment(options.cache)).absolute()
    with stage("Vidur trains and tabulates its predictor of step times"):
        simulate_vidur(trace, options, python, BARE)
    compile_seconds = time_first_call(trace, options)
    vidur_runs: dict[str, list[Outcome]] = {variant: [] for variant in VIDUR_VARIANTS}
    our_runs: dict[str, list[Outcome]] = {policy: [] for policy in POLICIES}
    for _ in track(range(options.rounds), "both in turns", "rounds"):
        for variant in VIDUR_VARIANTS:
            outcome, driver = simulate_vidur(trace, options, python, variant)
            vidur_runs[variant].append(outcome)
        for policy in POLICIES:
            our_runs[policy] += [simulate_ours(trace, options, policy) for _ in range(options.repeats)]
    vidur = {variant: summarise(trace, runs) for variant, runs in vidur_runs.items()}
    ours = {policy: summarise(trace, runs) for policy, runs in our_runs.items()}

    def ratio(variant: str, cost: str) -> float:
        slower = max(summary[cost] for summary in ours.values())
        return float(vidur[variant][cost] / slower)

    return {
        "vidur": vidur,
        "ours": ours,
        "ratio": ratio(RECORDING, "wall_seconds"),
        "cpu_ratio": ratio(RECORDING, "cpu_seconds"),
        "ratio_to_bare_vidur": ratio(BARE, "wall_seconds"),
        "cpu_ratio_to_bare_vidur": ratio(BARE, "cpu_seconds"),
        "compile_seconds": compile_seconds,
        "vidur_attention_table": driver["attention_table"],
        "versions": {
            "vidur": {"commit": commit(options.vidur), **driver["versions"]},
            "ours": {"commit": commit(ROOT), **versions()},
        },
    }


def summarise(trace: Trace, runs: list[Outcome]) -> dict[str, Any]:
    """The median run's cost, and what it simulated."""
    seconds = [run.seconds for run in runs]
    run = runs[-1]
    return {
        "wall_seconds": median(seconds),
        "wall_seconds_all": seconds,
        "cpu_seconds": median(run.cpu_seconds for run in runs),
        "requests": len(trace),
        "requests_per_s": len(trace) / median(seconds),
        "simulated_seconds": float(run.completed_s.max()),
        "steps": run.steps,
        "preemptions": run.preemptions,
        "promotions": run.promotions,
        "max_queue_depth": max_queue_depth(trace.arrivals_s, run.started_s),
        "e2e_s": distribution(run.completed_s - trace.arrivals_s),
        "ttft_s": distribution(run.first_token_s - trace.arrivals_s),
    }


def distribution(values: Numbers) -> dict[str, float]:
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    return {
        "mean": float(values.mean()),
        "p50": float(p50),
        "p90": float(p90),
        "p99": float(p99),
        "max": float(values.max()),
    }


def max_queue_depth(arrivals_s: Numbers, started_s: Numbers) -> int:
    """Most requests that had arrived and had not been started for the first time."""
    arrived = np.searchsorted(arrivals_s, arrivals_s, side="right")
    started = np.searchsorted(np.sort(started_s), arrivals_s, side="left")
    return int((arrived - started).max())


def vidur_environment(cache: Path) -> Path:
    """The Python of an environment that can run Vidur, made with pip if there is none."""
    python = cache / "venv" / "bin" / "python"
    ready = cache / "venv" / "ready"
    if not ready.exists():
        tell(f"making an environment for Vidur in {cache / 'venv'}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", cache / "venv"], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *VIDUR_NEEDS], check=True, stdout=sys.stderr
        )
        ready.touch()
    return python


def simulate_vidur(
    trace: Trace, options: argparse.Namespace, python: Path, variant: str
) -> tuple[Outcome, dict[str, Any]]:
    """One run of Vidur in a process of its own, and what its driver says of it."""
    scratch = options.cache.resolve() / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    profile = find_profile(PROFILE)
    settings = {
        "vidur_dir": str(options.vidur.resolve()),
        "seed": options.seed,
        "metrics": variant == RECORDING,
        "scratch_dir": str(scratch),
        "batch_cap": options.batch_cap,
        "token_budget": options.token_budget,
        "kv_blocks": options.kv_blocks,
        "block_size": profile.block_size,
        "max_model_len": profile.max_model_len,
        "arrivals_s": trace.arrivals_s.tolist(),
        "input_tokens": trace.input_tokens.tolist(),
        "output_tokens": trace.output_tokens.tolist(),
    }
    process = subprocess.run(
        [python, Path(__file__).with_name("vidur_driver.py")],
        input=json.dumps(settings),
        capture_output=True,
        text=True,
        cwd=scratch,
        env={**os.environ, "WANDB_MODE": "disabled"},
    )
    if process.returncode:
        sys.exit(f"Vidur failed:\n{process.stderr[-4000:]}")
    result = json.loads(process.stdout)
    outcome = Outcome(
        seconds=result["seconds"],
        cpu_seconds=result["cpu_seconds"],
        steps=result["steps"],
        preemptions=result["preemptions"],
        promotions=0,
        started_s=np.array(result["started_s"]),
        first_token_s=np.array(result["first_token_s"]),
        completed_s=np.array(result["completed_s"]),
    )
    return outcome, result


def simulate_ours(trace: Trace, options: argparse.Namespace, policy: str) -> Outcome:
    """One run of ours, its columns made and its records written."""
    profile = replace(
        find_profile(PROFILE),
        max_sequences=options.batch_cap,
        max_batched_tokens=options.token_budget,
        kv_blocks=options.kv_blocks,
    )
    settings = SimulationSettings(starvation=StarvationSettings(max_wait_s=options.max_wait))
    with tempfile.TemporaryDirectory() as folder:
        started, cpu_started = time.perf_counter(), time.process_time()
        requests = columns(trace.arrivals_s, trace.input_tokens, trace.output_tokens, score=trace.scores)
        run = simulate(requests, make_policy(policy), profile, settings)
        header = RunHeader(policy=policy, engine=f"simulated/{profile.name}", seed=options.seed)
        write_run_columns(Path(folder) / "results.parquet", header, result_columns(trace, run))
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    return Outcome(
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        steps=run.totals.steps,
        preemptions=run.totals.preemptions,
        promotions=run.totals.promotions,
        started_s=run.scheduled_s,
        first_token_s=run.first_token_s,
        completed_s=run.end_s,
    )


def result_columns(trace: Trace, run: Simulated) -> dict[str, Any]:
    """The result records' fields that a simulation fills."""
    return {
        "id": trace.ids,
        "outcome": np.full(len(trace), "finished", object),
        "sent_s": trace.arrivals_s,
        "end_s": run.end_s,
        "first_token_s": run.first_token_s,
        "input_tokens": trace.input_tokens,
        "output_tokens": trace.output_tokens,
        "score": trace.scores,
        "server_scheduled_s": run.scheduled_s - trace.arrivals_s,
        "server_first_token_s": run.first_token_s - trace.arrivals_s,
        "server_end_s": run.end_s - trace.arrivals_s,
        "max_token_gap_s": run.max_token_gap_s,
        "preemptions": run.preemptions,
        "promoted": run.promoted,
    }


def time_first_call(trace: Trace, options: argparse.Namespace) -> float:
    """Seconds of a first run on a few requests: what compiling, or loading what was compiled, takes."""
    few = Trace(*(getattr(trace, field.name)[:10] for field in fields(trace)))
    started = time.perf_counter()
    for policy in POLICIES:
        simulate_ours(few, options, policy)
    return time.perf_counter() - started


def million(options: argparse.Namespace) -> dict[str, Any]:
    """A million requests under ranking, once; the peak memory is that of the whole process."""
    trace = read_trace(options, MILLION)
    time_first_call(trace, options)
    outcome = simulate_ours(trace, options, "ranking")
    return summarise(trace, [outcome]) | {"peak_rss_gb": peak_rss_gb()}


def peak_rss_gb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


def show(results: dict[str, Any]) -> None:
    settings = results["settings"]
    print(f"{results['machine']}; seed {settings['seed']}; {settings['profile']}")
    print(
        f"{settings['rate']} requests/s; batch cap {settings['batch_cap']}, {settings['token_budget']} tokens"
        f" a step, {settings['kv_blocks']} KV blocks of {settings['block_size']}; wait bound of ours"
        f" {settings['max_wait_s']} s\n"
    )
    print(
        "| | requests | wall s | CPU s | requests/s | simulated s | steps | preempted | promoted | max queue"
        " | E2E mean, p99 s | TTFT mean, p99 s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    if "vidur" in results:
        for variant, summary in results["vidur"].items():
            show_row(f"Vidur fcfs, {variant}", summary)
        for policy, summary in results["ours"].items():
            show_row(f"ours {policy}", summary)
    if "million" in results:
        show_row("ours ranking", results["million"])
        print(f"\npeak memory with a million requests: {results['million']['peak_rss_gb']:.2f} GB")
    if "vidur" in results:
        print(
            f"\nratio: {results['ratio']:.0f} (in CPU seconds {results['cpu_ratio']:.0f}); to Vidur bare"
            f" {results['ratio_to_bare_vidur']:.0f} ({results['cpu_ratio_to_bare_vidur']:.0f})"
        )
        print(f"compiling ours, not in the above: {results['compile_seconds']:.1f} s")
        print(f"Vidur's attention table: {results['vidur_attention_table']}")
        print(f"versions: {results['versions']}")


def show_row(name: str, summary: dict[str, Any]) -> None:
    e2e, ttft = summary["e2e_s"], summary["ttft_s"]
    print(
        f"| {name} | {summary['requests']:,} | {summary['wall_seconds']:.4f} | {summary['cpu_seconds']:.4f}"
        f" | {summary['requests_per_s']:,.0f} | {summary['simulated_seconds']:.0f} | {summary['steps']:,}"
        f" | {summary['preemptions']:,} | {summary['promotions']:,} | {summary['max_queue_depth']:,}"
        f" | {e2e['mean']:.1f}, {e2e['p99']:.1f} | {ttft['mean']:.1f}, {ttft['p99']:.1f} |"
    )


def versions() -> dict[str, str]:
    names = ("rankserve", "numpy", "numba", "pyarrow")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def commit(checkout: Path) -> str:
    """Its git commit, empty where it is not a clone."""
    process = subprocess.run(
        ["git", "-C", checkout, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True
    )
    return process.stdout.strip()


if __name__ == "__main__":
    with report_on(sys.stderr):
        main()
