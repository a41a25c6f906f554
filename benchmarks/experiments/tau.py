"""Latency against the quality of the order (Fu et al. 2024)."""

from functools import partial

import numpy as np
from benchmarks.experiments import plots
from benchmarks.experiments.arrivals import on_off, poisson
from benchmarks.experiments.bench import Bench, Section, describe, engine
from benchmarks.experiments.contenders import FCFS, RANKING
from benchmarks.experiments.degraded import NoisyRanker
from benchmarks.experiments.intervals import Interval, interval, number, ratios
from benchmarks.experiments.prompts import ALPACA, Numbers
from benchmarks.experiments.runs import Figures, Results, Scenario, csv_rows, run_all
from benchmarks.experiments.tables import markdown
from benchmarks.experiments.workloads import alpaca_lengths, predicted
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankserve.client.evaluation.plots import BASELINE_COLOUR
from rankserve.server.simulation.columns import RequestColumns

TITLE = "Latency against Kendall's tau"
TAUS = tuple(round(0.1 * tenth, 1) for tenth in range(11))
REQUESTS = 4_000
ON, OFF, OVERLOAD_RATE = (60.0, 20.0), (15.0, 40.0), 60.0
# tau -> mean s/token, 8B on ShareGPT (Fu et al. 2024).
PAPER = {0.0: 1.26, 0.22: 0.99, 0.39: 0.88, 0.51: 0.69, 0.69: 0.48, 1.0: 0.39}
LOADS = {
    "on/off": lambda draw, count: on_off(draw, count, ON, OFF),
    "overload": lambda draw, count: poisson(draw, count, OVERLOAD_RATE),
}


def run(bench: Bench) -> Section:
    prompt_tokens, lengths = alpaca_lengths(bench.data)
    profile = engine(ALPACA.profile)

    def requests(seed: int, ranker: NoisyRanker, load: str) -> RequestColumns:
        draw = np.random.default_rng(seed)
        chosen = draw.integers(0, len(lengths), bench.count(REQUESTS))
        arrival_s: Numbers = LOADS[load](draw, len(chosen))
        return predicted(arrival_s, prompt_tokens[chosen], lengths[chosen], ranker, draw)

    rankers = {tau: NoisyRanker.of(lengths, tau) for tau in TAUS}
    scenarios = [
        Scenario(label(load, tau), profile, partial(requests, ranker=ranker, load=load))
        for load in LOADS
        for tau, ranker in rankers.items()
    ]
    results = run_all(bench, scenarios, (FCFS, RANKING))
    halfway = relative(results, "on/off", 0.6)
    return Section(
        shows=(
            "Latency falls steadily with tau, and most of the gain comes early: at tau 0.6, about what our"
            f" rankers reach on real prompts, mean s/token on the on/off load is {halfway} of FCFS's, and a"
            f" perfect order would reach {relative(results, 'on/off', 1.0)}."
            " The p99 of E2E latency falls below plain ranking's worst only slowly: even a perfect order"
            f" leaves it at {p99(results, 'on/off', 1.0)} times FCFS's, because long answers wait for all"
            " shorter ones."
        ),
        paper=(
            "The curve of 8B on ShareGPT, mean only: "
            + ", ".join(f"{tau:g} → {seconds}" for tau, seconds in PAPER.items())
            + " s/token. Drawn beside ours relative to its value at tau 0."
        ),
        setting=(
            f"{describe(profile)}. {bench.count(REQUESTS):,} requests with lengths drawn from Alpaca's"
            " 17,971, no ranker: scores are log length + normal noise of the width that gives the tau."
            f" On/off: {ON[0]:g} requests/s for {ON[1]:g} s, {OFF[0]:g} for {OFF[1]:g} s. Overload:"
            f" {OVERLOAD_RATE:g}/s, where latencies grow with the length of the run. Two samples of one"
            " prompt agree with tau 0.64, the mean of three with a fourth 0.69: no ranker of these prompts"
            " goes beyond that."
        ),
        tables="\n".join(f"{load}:\n\n{table(results, load)}" for load in LOADS),
        figure=draw_plot(results),
        rows=csv_rows(bench, results, {each.label: profile for each in scenarios}),
    )


def label(load: str, tau: float) -> str:
    return f"{load}, tau {tau:g}"


def relative(results: Results, load: str, tau: float) -> Interval:
    """Ranking's mean s/token over FCFS's."""
    runs = _of(results, load, tau)
    return ratios([each.mean_s_per_token for each in runs[1]], [each.mean_s_per_token for each in runs[0]])


def p99(results: Results, load: str, tau: float) -> Interval:
    """Ranking's p99 E2E over FCFS's."""
    runs = _of(results, load, tau)
    return ratios([each.p99_e2e_s for each in runs[1]], [each.p99_e2e_s for each in runs[0]])


def _of(results: Results, load: str, tau: float) -> tuple[list[Figures], list[Figures]]:
    key = label(load, tau)
    return results[key, FCFS.label], results[key, RANKING.label]


def table(results: Results, load: str) -> str:
    fcfs = results[label(load, TAUS[0]), FCFS.label]
    rows = [["FCFS", *_cells(fcfs), "1", "1"]]
    for tau in TAUS:
        ranking = _of(results, load, tau)[1]
        rows.append(
            [
                f"tau {tau:g}",
                *_cells(ranking),
                *map(str, (relative(results, load, tau), p99(results, load, tau))),
            ]
        )
    return markdown(
        [
            "ranking with",
            "mean s/token",
            "p99 s/token",
            "mean E2E, s",
            "p99 E2E, s",
            "waiting, mean / most",
            "mean s/token / FCFS's",
            "p99 E2E / FCFS's",
        ],
        rows,
    )


def _cells(runs: list[Figures]) -> list[str]:
    means = (
        interval([each.mean_s_per_token for each in runs]),
        interval([each.p99_s_per_token for each in runs]),
        interval([each.mean_e2e_s for each in runs]),
        interval([each.p99_e2e_s for each in runs]),
    )
    waiting = float(np.mean([each.waiting_mean for each in runs]))
    return [*map(str, means), f"{number(waiting)} / {max(each.waiting_max for each in runs):,}"]


def draw_plot(results: Results) -> Figure:
    figure, (left, right) = plots.panels(2)
    for index, load in enumerate(LOADS):
        at_zero = [each.mean_s_per_token for each in _of(results, load, 0.0)[1]]
        means = [
            ratios([each.mean_s_per_token for each in _of(results, load, tau)[1]], at_zero) for tau in TAUS
        ]
        _line(left, means, index, f"ours, {load}")
        _line(right, [p99(results, load, tau) for tau in TAUS], index, f"ours, {load}")
    left.plot(
        list(PAPER),
        [seconds / PAPER[0.0] for seconds in PAPER.values()],
        color="black",
        marker="x",
        linestyle="--",
        label="paper, 8B ShareGPT",
    )
    right.axhline(1, color=BASELINE_COLOUR, linestyle=":")
    left.set(xlabel="Kendall's tau", ylabel="Mean s/token, relative to tau 0", ylim=(0, 1.05))
    right.set(xlabel="Kendall's tau", ylabel="p99 E2E, relative to FCFS")
    right.set_ylim(bottom=0)
    plots.legend_above(figure, left)
    return figure


def _line(axes: Axes, means: list[Interval], index: int, name: str) -> None:
    axes.errorbar(
        TAUS,
        [each.mean for each in means],
        yerr=[each.half_width for each in means],
        label=name,
        **plots.look(index, name),
    )
