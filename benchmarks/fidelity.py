"""How close the simulated LLM comes to real vLLM runs, from tables of kernel times alone.

Replays requests that a real vLLM 0.19 served - their arrivals, prompt and output lengths - in virtual time,
under the profile that `rankserve profile add` makes of measured kernels, and compares TTFT, TPOT and E2E
latency at mean, p50, p90 and p99. Nothing is fitted to the runs. Stated, and the same for both: the pause
between steps (0.16 ms) and between kernels (0.5 us), with their sources in `rankserve profile add --help`.
Stated for each, from the run's own settings: sequences, tokens a step, KV blocks, and the prefix that all its
prompts share. The two runs were known while the model of a step was worked out.

    python benchmarks/fidelity.py                    # the two runs in ../shared/data
    python benchmarks/fidelity.py --plot curves.png  # running and waiting requests over the real ones
    python benchmarks/fidelity.py --requests R.csv.gz --timeseries T.csv.gz --profile P.toml

The last replays another run, under a profile of your own. Prints tables, or with --json one object. Needs
`pip install '.[server]'`, matplotlib for --plot, and for the two runs the data folder (--data).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankserve.progress import report_on, tell, track
from rankserve.server.engines.simulated.csv_table import TableError, read_table
from rankserve.server.engines.simulated.profile import Profile
from rankserve.server.engines.simulated.profile_files import ProfileError
from rankserve.server.engines.simulated.profiles import UnknownProfileError, find_profile
from rankserve.server.scheduling.policies import make_policy
from rankserve.server.simulation.columns import columns
from rankserve.server.simulation.outcome import Outcome
from rankserve.server.simulation.setup import SimulationSettings
from rankserve.server.simulation.simulator import simulate

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
KERNEL_TABLES = ("attention", "dense", "per_sequence")
STATISTICS = ("mean", "p50", "p90", "p99")
METRICS = ("e2e", "tpot", "ttft")
# More moments than any of the runs has steps.
TIMELINE = 200_000

Numbers = NDArray[np.float64]


@dataclass(slots=True, frozen=True)
class KnownRun:
    """A run in the data folder and the settings it states.

    Attributes:
        name: as in the names of its files.
        kv_blocks: that vLLM reported; for a run whose KV never fills, what fits beside the weights.
        max_sequences: vLLM's max_num_seqs.
        layers: of the model.
        shared_prefix_tokens: that each prompt begins with, in whole KV blocks: the chat template's. From the
            prefix cache's hits that the log of LLMServingSim's replay states, 16 tokens a request.
    """

    name: str
    kv_blocks: int
    max_sequences: int
    layers: int = 32
    shared_prefix_tokens: int = 16


KNOWN = (
    KnownRun("rtx4090_llama-3.1-8b", kv_blocks=2588, max_sequences=256),
    KnownRun("rtxpro6000_llama-3.1-8b", kv_blocks=35500, max_sequences=128),
)


@dataclass(slots=True, frozen=True)
class RealRun:
    """What a real engine did: requests in order of arrival, each column of shape [requests], in s.

    Attributes:
        name: of the run.
        arrival_s, first_token_s, last_token_s: of each request.
        input_tokens, output_tokens: its lengths.
        timeseries: columns t, running and waiting, each second; empty if not known.
    """

    name: str
    arrival_s: Numbers
    first_token_s: Numbers
    last_token_s: Numbers
    input_tokens: Numbers
    output_tokens: Numbers
    timeseries: dict[str, Numbers]


@dataclass(slots=True, frozen=True)
class Replay:
    """A real run beside its simulation.

    Attributes:
        real: the run.
        profile: under which it was simulated.
        outcome: the simulation.
        seconds: that the simulation took, compiled.
        figures: [metric][statistic] -> (real s, simulated s, relative error).
    """

    real: RealRun
    profile: Profile
    outcome: Outcome
    seconds: float
    figures: dict[str, dict[str, tuple[float, float, float]]]

    def worst(self, metric: str) -> float:
        """The largest relative error of a metric over its statistics."""
        return max(abs(error) for _, _, error in self.figures[metric].values())


def main() -> None:
    options = parse_options()
    try:
        with tempfile.TemporaryDirectory() as folder:
            runs = runs_to_replay(options, Path(folder))
            replays = [replay(run, profile) for run, profile in track(runs, "simulating", "runs")]
    except (TableError, ProfileError, UnknownProfileError, ValueError) as error:
        sys.exit(f"error: {error}")
    if options.plot:
        draw(replays, options.plot)
        tell(f"wrote {options.plot}")
    if options.json:
        print(json.dumps(as_object(replays)))
    else:
        for each in replays:
            print_table(each)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder that holds steptime/ and validation/")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plot", type=Path, help="PNG to draw running and waiting requests into")
    other = parser.add_argument_group("another run, instead of the two")
    other.add_argument(
        "--requests",
        type=Path,
        help="CSV: input_tokens, output_tokens, arrival_s, first_token_s, last_token_s",
    )
    other.add_argument("--timeseries", type=Path, help="CSV for the plot: t, running, waiting")
    other.add_argument("--profile", help="name, or .toml file written by `rankserve profile add`")
    other.add_argument("--max-sequences", type=int, help="vLLM's max_num_seqs, if not the profile's")
    other.add_argument("--max-batched-tokens", type=int, help="max_num_batched_tokens, if not the profile's")
    other.add_argument("--kv-blocks", type=int, help="num_gpu_blocks, if not the profile's")
    other.add_argument(
        "--shared-prefix-tokens", type=int, help="that all prompts begin with, in whole blocks"
    )
    options = parser.parse_args()
    if (options.requests is None) != (options.profile is None):
        parser.error("another run needs both --requests and --profile")
    others = ("timeseries", "max_sequences", "max_batched_tokens", "kv_blocks", "shared_prefix_tokens")
    if options.requests is None and any(getattr(options, name) is not None for name in others):
        parser.error(f"--{', --'.join(others).replace('_', '-')} are for another run: give --requests too")
    return options


def runs_to_replay(options: argparse.Namespace, folder: Path) -> list[tuple[RealRun, Profile]]:
    if options.requests:
        given = {
            name: getattr(options, name)
            for name in ("max_sequences", "max_batched_tokens", "kv_blocks", "shared_prefix_tokens")
            if getattr(options, name) is not None
        }
        profile = find_profile(options.profile)
        blocks = given.get("kv_blocks", profile.kv_blocks)
        given["max_model_len"] = min(profile.max_model_len, blocks * profile.block_size)
        run = read_run(options.requests.name.split(".csv")[0], options.requests, options.timeseries)
        return [(run, replace(profile, **given))]
    if not (options.data / "validation").is_dir():
        raise ValueError(f"no runs in {options.data}/validation: say where with --data, or give --requests")
    files = {run: options.data / "validation" / f"vllm_{run.name}_requests.csv.gz" for run in KNOWN}
    return [
        (
            read_run(run.name, file, file.with_name(f"vllm_{run.name}_timeseries.csv.gz")),
            replace(
                add_profile(run, options.data / "steptime", folder),
                shared_prefix_tokens=run.shared_prefix_tokens,
            ),
        )
        for run, file in files.items()
    ]


def add_profile(run: KnownRun, tables: Path, folder: Path) -> Profile:
    """Makes the profile as a user does, with the command."""
    file = folder / f"{run.name}.toml"
    named = {name: tables / f"llmservingsim_{run.name}_tp1_{name}.csv.gz" for name in KERNEL_TABLES}
    rankserve = [sys.executable, "-c", "from rankserve.cli.main import app; app()"]
    command = [*rankserve, "profile", "add", file, "--kv-blocks", run.kv_blocks, "--layers", run.layers]
    command += ["--max-sequences", run.max_sequences]
    for name, path in named.items():
        command += [f"--{name.replace('_', '-')}", path]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"`rankserve profile add` failed: {done.stderr.strip()}")
    return find_profile(str(file))


def read_run(name: str, requests: Path, timeseries: Path | None) -> RealRun:
    wanted = ("arrival_s", "first_token_s", "last_token_s", "input_tokens", "output_tokens")
    read, _ = read_table(requests, {column: (column,) for column in wanted})
    arrival_s, first_s, last_s = (np.array(read[column]) for column in wanted[:3])
    wrong = (first_s <= arrival_s) | (last_s < first_s) | (np.array(read["output_tokens"]) < 1)
    if wrong.any():
        raise ValueError(
            f"{requests}: request {int(np.argmax(wrong)) + 1} has no output tokens, or its arrival, first and"
            " last token are not in this order"
        )
    if max(read["output_tokens"]) < 2:
        raise ValueError(f"{requests}: no answer has two tokens, so there is no time between tokens")
    order = np.argsort(arrival_s, kind="stable")
    seen: dict[str, Numbers] = {}
    if timeseries is not None:
        series, _ = read_table(timeseries, {column: (column,) for column in ("t", "running", "waiting")})
        seen = {column: np.array(values) for column, values in series.items()}
    # From the first arrival on, whatever clock they were taken from.
    for column in wanted[:3]:
        read[column] = list(np.array(read[column]) - arrival_s.min())
    return RealRun(name=name, timeseries=seen, **{column: np.array(read[column])[order] for column in wanted})


def replay(run: RealRun, profile: Profile) -> Replay:
    requests = columns(run.arrival_s, run.input_tokens.astype(np.int64), run.output_tokens.astype(np.int64))
    policy, settings = make_policy("fcfs"), SimulationSettings()
    # The first run compiles, or loads what was compiled.
    simulate(requests, policy, profile, settings)
    started = time.perf_counter()
    outcome = simulate(requests, policy, profile, settings, timeline=TIMELINE)
    seconds = time.perf_counter() - started
    real = latencies(run.arrival_s, run.first_token_s, run.last_token_s, run.output_tokens)
    simulated = latencies(run.arrival_s, outcome.first_token_s, outcome.end_s, run.output_tokens)
    figures = {
        metric: {
            statistic: (was, came, came / was - 1)
            for statistic, was, came in zip(
                STATISTICS, statistics(real[metric]), statistics(simulated[metric]), strict=True
            )
        }
        for metric in METRICS
    }
    return Replay(run, profile, outcome, seconds, figures)


def latencies(arrival_s: Numbers, first_s: Numbers, last_s: Numbers, output: Numbers) -> dict[str, Numbers]:
    """Seconds from arrival to the last token, between tokens after the first, and to the first."""
    several = output > 1
    return {
        "e2e": last_s - arrival_s,
        "tpot": (last_s - first_s)[several] / (output[several] - 1),
        "ttft": first_s - arrival_s,
    }


def statistics(values: Numbers) -> list[float]:
    return [float(values.mean()), *(float(value) for value in np.percentile(values, (50, 90, 99)))]


def as_object(replays: list[Replay]) -> dict[str, object]:
    worst = {f"worst_{metric}_error": max(each.worst(metric) for each in replays) for metric in METRICS}
    return worst | {
        "runs": [
            {
                "name": each.real.name,
                "requests": len(each.real.arrival_s),
                "profile": each.profile.name,
                "kv_blocks": each.profile.kv_blocks,
                "max_sequences": each.profile.max_sequences,
                "max_batched_tokens": each.profile.max_batched_tokens,
                "shared_prefix_tokens": each.profile.shared_prefix_tokens,
                "overhead_ms": each.profile.step_times.overhead_ms,
                "steps": each.outcome.totals.steps,
                "preemptions": each.outcome.totals.preemptions,
                "simulation_seconds": each.seconds,
                **{f"worst_{metric}_error": each.worst(metric) for metric in METRICS},
                "figures": {
                    metric: {
                        statistic: dict(zip(("real_s", "simulated_s", "error"), values, strict=True))
                        for statistic, values in by_statistic.items()
                    }
                    for metric, by_statistic in each.figures.items()
                },
            }
            for each in replays
        ]
    }


def print_table(each: Replay) -> None:
    profile, totals = each.profile, each.outcome.totals
    print(
        f"\n{each.real.name}: {len(each.real.arrival_s)} requests, at most {profile.max_sequences} sequences,"
        f" {profile.max_batched_tokens} tokens a step, {profile.kv_blocks} KV blocks,"
        f" {profile.shared_prefix_tokens} tokens shared; {profile.step_times.overhead_ms:.3f} ms overhead a"
        f" step\n{totals.steps} steps, {totals.preemptions} preemptions, simulated in {each.seconds:.3f} s\n"
    )
    print("| metric | " + " | ".join(f"{s} real | simulated | error" for s in STATISTICS) + " |")
    print("|---|" + "---:|" * (3 * len(STATISTICS)))
    for metric in METRICS:
        scale, unit = (1000.0, "ms") if metric == "tpot" else (1.0, "s")
        cells = [
            f"{real * scale:.2f} | {simulated * scale:.2f} | {error:+.1%}"
            for real, simulated, error in each.figures[metric].values()
        ]
        print(f"| {metric.upper()} ({unit}) | " + " | ".join(cells) + " |")


def curves(each: Replay) -> dict[str, Numbers]:
    """Requests that run and that wait in the simulation, ten times a second."""
    outcome = each.outcome
    moments = np.arange(0, outcome.totals.end_s, 0.1)
    noted_s, noted_running = outcome.timeline[:, 0], outcome.timeline[:, 1]
    # A moment is noted when the batch changes; arrivals in between wait.
    running = noted_running[np.searchsorted(noted_s, moments, side="right") - 1]
    arrived = np.searchsorted(each.real.arrival_s, moments, side="right")
    ended = np.searchsorted(np.sort(outcome.end_s), moments, side="right")
    return {"t": moments, "running": running, "waiting": np.maximum(0, arrived - ended - running)}


def draw(replays: list[Replay], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(len(replays), 2, figsize=(11, 3.2 * len(replays)), squeeze=False)
    for row, each in zip(rows, replays, strict=True):
        series, simulated = each.real.timeseries, curves(each)
        for panel, name in zip(row, ("running", "waiting"), strict=True):
            if series:
                panel.plot(series["t"], series[name], label="vLLM", color="0.6", linewidth=3)
            panel.plot(simulated["t"], simulated[name], label="simulated", linewidth=1)
            panel.set(title=f"{each.real.name}: {name}", xlabel="s", ylabel="requests")
            panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    with report_on(sys.stderr):
        main()
