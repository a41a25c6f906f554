"""Latency against load, on real prompts with a real ranker's scores (Fu et al. 2024)."""

import numpy as np
from benchmarks.experiments import plots
from benchmarks.experiments.bench import Bench, Section, describe, engine
from benchmarks.experiments.contenders import (
    BOUNDED,
    CLASSIFICATION,
    EVERYONE,
    FCFS,
    MLFQ,
    MLFQ_NOTE,
    ORACLE,
    RANKING,
)
from benchmarks.experiments.intervals import Interval, interval, number, percent, ratios
from benchmarks.experiments.preparation import held_out
from benchmarks.experiments.prompts import DATA_SETS, IN_ORDER, MMLU_8B, MMLU_70B, DataSet
from benchmarks.experiments.runs import Contender, Figures, Results, Scenario, csv_rows, run_all
from benchmarks.experiments.tables import markdown
from benchmarks.experiments.workloads import capacity, drawn
from matplotlib.figure import Figure

from rankserve.client.load import Poisson
from rankserve.server.simulation.columns import RequestColumns

TITLE = "Latency against load"
RATES = (2, 4, 8, 16, 32, 64)
REQUESTS = 10_000
# Where the oracle gains less than this share of FCFS's latency, there is no gap to close.
SMALLEST_GAP = 0.02
# s/token at 64 requests/s: FCFS, MLFQ, classification, ranking (Fu et al. 2024).
PAPER = {
    "Llama-3-8B, LMSYS": (5.60, 1.28, 3.33, 0.78),
    "Llama-3-8B, ShareGPT": (3.92, 2.67, 3.22, 1.58),
    "Llama-3-70B, LMSYS": (6.61, 2.4, 2.42, 1.13),
    "Llama-3-70B, ShareGPT": (4.13, 3.9, 3.99, 1.64),
}


def run(bench: Bench) -> Section:
    scenarios = [scenario(bench, data_set, rate) for data_set in DATA_SETS for rate in RATES]
    results = run_all(bench, scenarios, EVERYONE)
    capacities = {each.name: capacity_of(bench, each) for each in DATA_SETS}
    tables = [
        "Ordered by the ranker, against its ceiling and baselines:\n",
        tau_table(bench),
        "How much of the gap between FCFS and the oracle ranking with real scores closes, in mean s/token:\n",
        gap_table(results),
        f"At {RATES[-1]} requests/s, beside the paper's figures, mean s/token:\n",
        paper_table(results),
    ]
    for data_set in DATA_SETS:
        tables += [
            f"**{data_set.title}**, {describe(engine(data_set.profile))}; it serves at most"
            f" {number(capacities[data_set.name])} of these requests/s. Normalised latency in s/token, mean"
            " and below it p99:\n",
            latency_table(results, data_set),
            "Requests waiting, mean / most (over seeds: mean of the means, most of all):\n",
            depth_table(results, data_set),
        ]
    top = [number(factor(results, each, RATES[-1]).mean) for each in DATA_SETS]
    closed = [gap(results, each, rate) for each in DATA_SETS for rate in RATES]
    shares = [share for share in closed if share is not None]
    return Section(
        shows=(
            f"Order gains nothing until requests wait; at {RATES[-1]} requests/s, above every engine's"
            f" capacity, FCFS's mean s/token is {' / '.join(top)} times that of ranking with real scores"
            f" ({IN_ORDER}), which closes {min(shares):.0%} to {max(shares):.0%} of the gap to the oracle"
            " wherever there is one. Others against ranking's mean on MMLU-Pro 8B at 16/s, where one answer"
            f" in twelve loops to its limit: MLFQ with swapping, which needs no ranker,"
            f" {against(results, MMLU_8B, 16, MLFQ)} times (on 70B at 64/s"
            f" {against(results, MMLU_70B, 64, MLFQ)}), and bounded ranking, the default, which gives up part"
            f" of the mean for [the tail](#the-tail-mean-against-p99),"
            f" {against(results, MMLU_8B, 16, BOUNDED)}."
        ),
        paper=(
            "The paper has the mean alone, from one run, for 8B and 70B on LMSYS and ShareGPT."
            " Its ratios are of another workload at another load relative to capacity: they show the shape,"
            " not the same quantity."
        ),
        setting=(
            f"{bench.count(REQUESTS):,} requests a run, drawn with replacement from the held-out prompts,"
            " Poisson arrivals. Above capacity the queue grows until the last arrival, so those latencies are"
            " of this run length: twice the requests would roughly double them."
            f" {MLFQ_NOTE} Classification sorts the same ranker's predicted lengths into buckets of 100"
            " tokens, so it is better than the paper's separately trained classifier."
        ),
        tables="\n".join(tables),
        figure=draw(results),
        rows=csv_rows(bench, results, {each.label: each.profile for each in scenarios}),
    )


def label(data_set: DataSet, rate: float) -> str:
    return f"{data_set.title}, {rate:g}/s"


def scenario(bench: Bench, data_set: DataSet, rate: float) -> Scenario:
    prompts = held_out(bench, data_set)

    def requests(seed: int) -> RequestColumns:
        return drawn(prompts, Poisson(rate, seed), bench.count(REQUESTS), seed, data_set.longest_answer)

    return Scenario(label(data_set, rate), engine(data_set.profile), requests)


def capacity_of(bench: Bench, data_set: DataSet) -> float:
    busiest = scenario(bench, data_set, RATES[-1])
    return capacity(busiest.requests(bench.seeds[0]), busiest.profile)


def factor(results: Results, data_set: DataSet, rate: float) -> Interval:
    """FCFS / ranking in mean s/token."""
    key = label(data_set, rate)
    return ratios(
        [each.mean_s_per_token for each in results[key, FCFS.label]],
        [each.mean_s_per_token for each in results[key, RANKING.label]],
    )


def against(results: Results, data_set: DataSet, rate: float, contender: Contender) -> str:
    """This one's mean s/token over ranking's."""
    key = label(data_set, rate)
    runs = results[key, contender.label], results[key, RANKING.label]
    mean = ratios([each.mean_s_per_token for each in runs[0]], [each.mean_s_per_token for each in runs[1]])
    return number(mean.mean)


def gap(results: Results, data_set: DataSet, rate: float) -> float | None:
    """Mean share of the gap closed; None where there is none."""
    shares = _gap_shares(results, data_set, rate)
    return float(np.mean(shares)) if shares else None


def _gap_shares(results: Results, data_set: DataSet, rate: float) -> list[float]:
    key = label(data_set, rate)
    runs = [
        [each.mean_s_per_token for each in results[key, contender.label]]
        for contender in (FCFS, RANKING, ORACLE)
    ]
    if 1 - np.mean(runs[2]) / np.mean(runs[0]) < SMALLEST_GAP:
        return []
    return [(fcfs - ranking) / (fcfs - oracle) for fcfs, ranking, oracle in zip(*runs, strict=True)]


def gap_table(results: Results) -> str:
    rows = []
    for data_set in DATA_SETS:
        shares = [_gap_shares(results, data_set, rate) for rate in RATES]
        rows.append([data_set.title, *(percent(each) if each else "no gap" for each in shares)])
    return markdown(["requests/s", *map(str, RATES)], rows)


def tau_table(bench: Bench) -> str:
    taus = {each.title: held_out(bench, each).tau for each in DATA_SETS}
    names = list(dict.fromkeys(name for each in taus.values() for name in each))
    rows = [
        [
            f"**{name}**" if name == "this ranker" else name,
            *(f"{each[name]:.3f}" if name in each else "one sample only" for each in taus.values()),
        ]
        for name in names
    ]
    sizes = [f"{title}, {len(held_out(bench, each)):,} held-out prompts" for title, each in _titles()]
    return markdown(["Kendall's tau-b with the replayed length", *sizes], rows)


def _titles() -> list[tuple[str, DataSet]]:
    return [(each.title, each) for each in DATA_SETS]


def latency_table(results: Results, data_set: DataSet) -> str:
    def cell(runs: list[Figures]) -> str:
        mean = interval([each.mean_s_per_token for each in runs])
        return f"{mean}<br>{interval([each.p99_s_per_token for each in runs])}"

    rows = [
        [contender.label, *(cell(results[label(data_set, rate), contender.label]) for rate in RATES)]
        for contender in EVERYONE
    ]
    return markdown(["requests/s", *map(str, RATES)], rows)


def depth_table(results: Results, data_set: DataSet) -> str:
    def cell(runs: list[Figures]) -> str:
        mean = np.mean([each.waiting_mean for each in runs])
        return f"{number(float(mean))} / {max(each.waiting_max for each in runs):,}"

    rows = [
        [contender.label, *(cell(results[label(data_set, rate), contender.label]) for rate in RATES)]
        for contender in EVERYONE
    ]
    return markdown(["requests/s", *map(str, RATES)], rows)


def paper_table(results: Results) -> str:
    rows: list[list[str]] = [
        [f"paper: {name}", *map(number, values), "–", number(values[0] / values[-1])]
        for name, values in PAPER.items()
    ]
    shown = (FCFS, MLFQ, CLASSIFICATION, RANKING, ORACLE)
    for data_set in DATA_SETS:
        key = label(data_set, RATES[-1])
        means = [interval([run.mean_s_per_token for run in results[key, each.label]]) for each in shown]
        rows.append([f"ours: {data_set.title}", *map(str, means), str(factor(results, data_set, RATES[-1]))])
    return markdown(["", *(each.label for each in shown), "FCFS / ranking"], rows)


def draw(results: Results) -> Figure:
    figure, grid = plots.panels(3, 3.8)
    for axes, data_set in zip(grid, DATA_SETS, strict=True):
        for index, contender in enumerate(EVERYONE):
            runs = [results[label(data_set, rate), contender.label] for rate in RATES]
            look = plots.look(index, contender.label)
            means = [interval([each.mean_s_per_token for each in seeds]) for seeds in runs]
            axes.errorbar(
                RATES,
                [each.mean for each in means],
                yerr=[each.half_width for each in means],
                label=contender.label,
                **look,
            )
        axes.set(xscale="log", yscale="log", xlabel="Requests/s (Poisson)", title=data_set.title)
        axes.set_xticks(RATES, map(str, RATES))
        axes.minorticks_off()
        plots.plain_numbers(axes.yaxis)
    grid[0].set_ylabel("Mean normalised latency, s/token")
    plots.legend_above(figure, grid[0], columns=5)
    return figure
