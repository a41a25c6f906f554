"""Latency against the quality of the order (Fu et al. 2024)."""

from collections.abc import Callable
from functools import partial

import numpy as np
from benchmarks.experiments import plots
from benchmarks.experiments.bench import Bench, Section, describe, engine
from benchmarks.experiments.contenders import FCFS, RANKING
from benchmarks.experiments.intervals import Interval, interval, number, ratios
from benchmarks.experiments.prompts import ALPACA
from benchmarks.experiments.runs import Figures, Results, Scenario, csv_rows, run_all
from benchmarks.experiments.tables import markdown
from benchmarks.experiments.workloads import alpaca_lengths, degraded
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankserve.client.evaluation.degraded import degraded_scores
from rankserve.client.evaluation.plots import BASELINE_COLOUR
from rankserve.client.load import DrawnArrivals, OnOff, Poisson
from rankserve.server.simulation.columns import RequestColumns

TITLE = "Latency against Kendall's tau"
TAUS = tuple(round(0.1 * tenth, 1) for tenth in range(11))
REQUESTS = 4_000
ON, OFF, OVERLOAD_RATE = (60.0, 20.0), (15.0, 40.0), 60.0
# tau -> mean s/token, 8B on ShareGPT (Fu et al. 2024).
PAPER = {0.0: 1.26, 0.22: 0.99, 0.39: 0.88, 0.51: 0.69, 0.69: 0.48, 1.0: 0.39}
LOADS: dict[str, Callable[[int], DrawnArrivals]] = {
    "on/off": lambda seed: OnOff(*ON, *OFF, seed),
    "overload": lambda seed: Poisson(OVERLOAD_RATE, seed),
}


def run(bench: Bench) -> Section:
    prompt_tokens, lengths = alpaca_lengths(bench.data)
    profile = engine(ALPACA.profile)

    def requests(seed: int, tau: float, load: str) -> RequestColumns:
        chosen = np.random.default_rng(seed).integers(0, len(lengths), bench.count(REQUESTS))
        arrival_s = np.array(LOADS[load](seed).draw(len(chosen)))
        scores = degraded_scores(lengths[chosen], tau, seed)
        return degraded(arrival_s, prompt_tokens[chosen], lengths[chosen], scores)

    scenarios = [
        Scenario(label(load, tau), profile, partial(requests, tau=tau, load=load))
        for load in LOADS
        for tau in TAUS
    ]
    results = run_all(bench, scenarios, (FCFS, RANKING))
    return Section(
        shows=(
            "A rough order gains most of what there is: on the on/off load mean s/token is"
            f" {number(relative(results, 'on/off', 0.3).mean)} of FCFS's at tau 0.3,"
            f" {number(relative(results, 'on/off', 0.6).mean)} at 0.6, near what our rankers reach on real"
            f" prompts, and {number(relative(results, 'on/off', 1.0).mean)} with a perfect order. It does"
            f" nothing for the tail: p99 E2E is {number(p99(results, 'on/off', 0.0).mean)} times FCFS's at"
            f" tau 0 and {number(p99(results, 'on/off', 1.0).mean)} times with a perfect order, since whoever"
            " is last waits for all others."
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
