"""A recorded service: Azure's conversation trace of 2023, as recorded and sped up to saturation."""

from functools import partial

import numpy as np
from benchmarks.experiments import plots
from benchmarks.experiments.bench import Bench, Section, describe, engine
from benchmarks.experiments.contenders import BOUNDED, EVERYONE, FCFS, MLFQ_NOTE, RANKING
from benchmarks.experiments.intervals import Interval, interval, number, ratios
from benchmarks.experiments.prompts import Integers, Numbers
from benchmarks.experiments.runs import Contender, Figures, Results, Scenario, csv_rows, run_all
from benchmarks.experiments.tables import markdown
from benchmarks.experiments.workloads import capacity, degraded
from matplotlib.figure import Figure

from rankserve.cli.simulation.trace import read_trace
from rankserve.client.evaluation.degraded import degraded_scores
from rankserve.server.engines.simulated.profiles import Profile
from rankserve.server.simulation.columns import RequestColumns

TITLE = "A recorded service"
FILE = "azure2023_conv.csv.gz"
REQUESTS = 20_000
TAU = 0.6
PROFILE = "a100-llama3-8b"
# Shares of capacity; None is as recorded.
LOADS = (None, 0.9, 1.0, 1.1)


def run(bench: Bench) -> Section:
    profile = engine(PROFILE)
    arrival_s, prompt_tokens, output_tokens = fitting(bench, profile)

    def requests(seed: int, speed: float) -> RequestColumns:
        scores = degraded_scores(output_tokens, TAU, seed)
        return degraded(arrival_s / speed, prompt_tokens, output_tokens, scores)

    recorded_rate = len(arrival_s) / (arrival_s[-1] - arrival_s[0])
    most = capacity(requests(bench.seeds[0], 1.0), profile)
    speeds = {load_name(load): (load or recorded_rate / most) * most / recorded_rate for load in LOADS}
    scenarios = [Scenario(name, profile, partial(requests, speed=speed)) for name, speed in speeds.items()]
    results = run_all(bench, scenarios, EVERYONE)
    at_capacity = load_name(1.0)
    gain, tail = against_fcfs(results, at_capacity, RANKING)
    bounded_gain, bounded_tail = against_fcfs(results, at_capacity, BOUNDED)
    return Section(
        shows=(
            f"As recorded the trace keeps one A100 {recorded_rate / most:.0%} busy and there is nothing to"
            f" gain; sped up to the engine's capacity, ranking has {number(gain.mean)} times less mean"
            f" s/token than FCFS but {number(tail.mean)} times its p99 E2E, since in an hour of saturation"
            f" long answers starve, and bounded ranking {number(bounded_gain.mean)} times less at"
            f" {number(bounded_tail.mean)} times. Prompts are five times as long as answers, so half of the"
            " work is prefill: cost-aware ranking, which counts it, has the lowest mean E2E of all without an"
            " oracle, and MLFQ, which evicts long prompts again and again, makes everything worse."
        ),
        paper="No recorded arrivals: Poisson and gamma only.",
        setting=(
            f"{describe(profile)}. {len(arrival_s):,} requests of {FILE} with their lengths and arrivals: all"
            f" but those longer than the {profile.max_model_len:,} tokens of the model"
            f" ({number(recorded_rate)}/s over {arrival_s[-1] / 60:.0f} minutes; capacity {number(most)}/s)."
            f" The trace has no prompts: scores are degraded to tau {TAU} (see"
            " [tau](#latency-against-kendalls-tau)), calibrated on the same lengths, and the"
            f" seeds draw only that noise, so FCFS, MLFQ and the oracle do not vary. {MLFQ_NOTE}"
        ),
        tables=table(results, {name: speed * recorded_rate for name, speed in speeds.items()}),
        figure=draw_plot(results),
        rows=csv_rows(bench, results, dict.fromkeys(speeds, profile)),
    )


def fitting(bench: Bench, profile: Profile) -> tuple[Numbers, Integers, Integers]:
    """Arrivals, prompt and answer lengths of the trace, without requests too long for the model."""
    trace = read_trace(bench.data / "traces" / FILE, bench.count(REQUESTS))
    if trace.arrival_s is None:
        raise ValueError(f"{FILE} has no arrivals")
    fits = trace.input_tokens + trace.output_tokens <= profile.max_model_len
    return trace.arrival_s[fits], trace.input_tokens[fits], trace.output_tokens[fits]


def against_fcfs(results: Results, load: str, contender: Contender) -> tuple[Interval, Interval]:
    """(FCFS's mean s/token over this one's, this one's p99 E2E over FCFS's)."""
    runs, fcfs = results[load, contender.label], results[load, FCFS.label]
    return (
        ratios([each.mean_s_per_token for each in fcfs], [each.mean_s_per_token for each in runs]),
        ratios([each.p99_e2e_s for each in runs], [each.p99_e2e_s for each in fcfs]),
    )


def load_name(load: float | None) -> str:
    return "as recorded" if load is None else f"{load:.0%} of capacity"


def table(results: Results, rates: dict[str, float]) -> str:
    parts = []
    for name, rate in rates.items():
        rows = [[each.label, *_cells(results[name, each.label])] for each in EVERYONE]
        header = ["mean s/token", "p99 s/token", "mean E2E, s", "p99 E2E, s", "longest TTFT, s"]
        parts.append(f"**{name}**, {number(rate)} requests/s\n")
        parts.append(markdown(["", *header, "waiting, mean / most"], rows))
    return "\n".join(parts)


def _cells(runs: list[Figures]) -> list[str]:
    names = ("mean_s_per_token", "p99_s_per_token", "mean_e2e_s", "p99_e2e_s", "longest_ttft_s")
    waiting = float(np.mean([each.waiting_mean for each in runs]))
    return [
        *(str(interval([getattr(each, name) for each in runs])) for name in names),
        f"{number(waiting)} / {max(each.waiting_max for each in runs):,}",
    ]


def draw_plot(results: Results) -> Figure:
    figure, grid = plots.panels(2)
    names = [load_name(load) for load in LOADS]
    for axes, figure_name, title in zip(
        grid, ("mean_s_per_token", "p99_e2e_s"), ("Mean s/token", "p99 E2E, s"), strict=True
    ):
        for index, contender in enumerate(EVERYONE):
            means = [
                interval([getattr(each, figure_name) for each in results[name, contender.label]])
                for name in names
            ]
            axes.errorbar(
                range(len(names)),
                [each.mean for each in means],
                yerr=[each.half_width for each in means],
                label=contender.label,
                **plots.look(index, contender.label),
            )
        axes.set(yscale="log", title=title)
        axes.set_xticks(range(len(names)), [name.replace(" of ", "\nof ") for name in names])
        plots.plain_numbers(axes.yaxis)
    plots.legend_above(figure, grid[0], columns=5)
    return figure
