"""Starvation prevention: the longest waits against the mean (Fu et al. 2024)."""

from collections.abc import Callable

import numpy as np
from benchmarks.experiments import plots
from benchmarks.experiments.bench import Bench, Section, describe, engine
from benchmarks.experiments.contenders import FCFS, ORACLE, RANKING
from benchmarks.experiments.intervals import interval, number, ratios
from benchmarks.experiments.preparation import held_out
from benchmarks.experiments.prompts import ALPACA
from benchmarks.experiments.runs import Contender, Figures, Results, Scenario, csv_rows, run_all
from benchmarks.experiments.tables import markdown
from benchmarks.experiments.workloads import drawn
from matplotlib.figure import Figure

from rankserve.client.load import OnOff
from rankserve.server.scheduling.policies import Ranking
from rankserve.server.scheduling.starvation import StarvationSettings
from rankserve.server.simulation.columns import RequestColumns
from rankserve.server.simulation.setup import SimulationSettings

TITLE = "Starvation prevention"
REQUESTS = 10_000
ON, OFF = (60.0, 20.0), (15.0, 40.0)
THRESHOLDS, QUANTA = (50, 100, 200, 500, 1000, 2000), (10, 50, 200)
MAX_WAITS_S = (2, 5, 10, 15, 20, 30)
PREEMPTIVE = Contender("ranking, preemptive", Ranking(), SimulationSettings(preemption="swap"))


def by_steps(threshold: int, quantum: int, preemption: str = "swap") -> Contender:
    bound = StarvationSettings(threshold_steps=threshold, quantum_steps=quantum)
    settings = SimulationSettings(starvation=bound, preemption=preemption)
    name = f"{threshold} steps, quantum {quantum}{'' if preemption == 'swap' else f', {preemption}'}"
    return Contender(name, Ranking(), settings)


def by_time(max_wait_s: float, *, preemptive: bool) -> Contender:
    bound = StarvationSettings(max_wait_s=max_wait_s)
    settings = SimulationSettings(starvation=bound, preemption="swap" if preemptive else "off")
    return Contender(f"{max_wait_s} s{', preemptive' if preemptive else ''}", Ranking(), settings)


# The paper's own setting, and the next one that this load bears.
SHIPPED, RAISED = by_steps(200, 10), by_steps(1000, 10)
RECOMPUTING = by_steps(200, 10, "recompute")
STEPS = {quantum: [by_steps(threshold, quantum) for threshold in THRESHOLDS] for quantum in QUANTA}
TIMES = [by_time(each, preemptive=False) for each in MAX_WAITS_S]
PREEMPTIVE_TIMES = [by_time(each, preemptive=True) for each in MAX_WAITS_S]
CONTENDERS = [
    FCFS,
    RANKING,
    PREEMPTIVE,
    ORACLE,
    RECOMPUTING,
    *(each for row in STEPS.values() for each in row),
    *TIMES,
    *PREEMPTIVE_TIMES,
]


def run(bench: Bench) -> Section:
    prompts, profile = held_out(bench, ALPACA), engine(ALPACA.profile)

    def requests(seed: int) -> RequestColumns:
        return drawn(prompts, OnOff(*ON, *OFF, seed), bench.count(REQUESTS), seed, ALPACA.longest_answer)

    scenario = Scenario("on/off", profile, requests)
    results = run_all(bench, [scenario], CONTENDERS)
    preemptive, plain = (by_time(15, preemptive=each).label for each in (True, False))
    return Section(
        shows=(
            f"The paper's counter as shipped ({SHIPPED.label}) leaves {longest(results, SHIPPED.label)} of"
            f" preemptive ranking's longest silence at {mean(results, SHIPPED.label)} times its mean s/token,"
            " since 200 steps pass in three seconds and most requests are promoted; raised to"
            f" {RAISED.label} it leaves {longest(results, RAISED.label)} at {mean(results, RAISED.label)}"
            f" times, like a bound of 15 s ({longest(results, preemptive)} at {mean(results, preemptive)}),"
            " whose meaning does not drift with the step time. With preemption the p99 of E2E latency stays"
            f" at {tail(results, preemptive)} times FCFS's, as whoever was promoted is evicted again after"
            f" its quantum; without, the bound of 15 s leaves {longest(results, plain)} at"
            f" {mean(results, plain)} times the mean and {tail(results, plain)} times FCFS's p99, and one"
            " below what FCFS needs turns the order into FCFS."
        ),
        paper=(
            "Max waiting time, averaged over requests, falls by up to 3.4 times for under 30 % more mean"
            " latency; threshold and quantum are counted in iterations, and off in the shipped code."
        ),
        setting=(
            f"{describe(profile)}. {bench.count(REQUESTS):,} Alpaca prompts with real scores, on/off load:"
            f" {ON[0]:g} requests/s for {ON[1]:g} s, {OFF[0]:g} for {OFF[1]:g} s. Max waiting is the paper's:"
            " the larger of TTFT and the longest gap between tokens. The counter preempts, as in the paper,"
            " by swapping: 128 KiB a token at 25 GB/s."
        ),
        tables=table(results),
        figure=draw_plot(results),
        rows=csv_rows(bench, results, {scenario.label: profile}),
    )


def mean(results: Results, name: str) -> str:
    """Mean s/token over that of preemptive ranking without a bound."""
    return _ratio(results, name, lambda each: each.mean_s_per_token)


def longest(results: Results, name: str) -> str:
    """The longest max waiting over that of preemptive ranking without a bound."""
    return _ratio(results, name, lambda each: each.longest_max_waiting_s)


def tail(results: Results, name: str) -> str:
    """p99 E2E over FCFS's."""
    runs, fcfs = results["on/off", name], results["on/off", FCFS.label]
    return number(ratios([each.p99_e2e_s for each in runs], [each.p99_e2e_s for each in fcfs]).mean)


def _ratio(results: Results, name: str, figure: Callable[[Figures], float]) -> str:
    runs, plain = results["on/off", name], results["on/off", PREEMPTIVE.label]
    return number(ratios([figure(each) for each in runs], [figure(each) for each in plain]).mean)


def table(results: Results) -> str:
    rows = [[each.label, *_cells(results["on/off", each.label])] for each in CONTENDERS]
    return markdown(
        [
            "ranking, bounded by",
            "mean s/token",
            "p99 s/token",
            "p99 E2E, s",
            "max waiting: mean, s",
            "p99, s",
            "longest, s",
            "promoted",
            "evictions",
            "waiting, mean / most",
        ],
        rows,
    )


def _cells(runs: list[Figures]) -> list[str]:
    names = (
        "mean_s_per_token",
        "p99_s_per_token",
        "p99_e2e_s",
        "mean_max_waiting_s",
        "p99_max_waiting_s",
        "longest_max_waiting_s",
    )
    waiting = float(np.mean([each.waiting_mean for each in runs]))
    return [
        *(str(interval([getattr(each, name) for each in runs])) for name in names),
        number(float(np.mean([each.promotions for each in runs]))),
        number(float(np.mean([each.preemptions for each in runs]))),
        f"{number(waiting)} / {max(each.waiting_max for each in runs):,}",
    ]


def draw_plot(results: Results) -> Figure:
    figure, grid = plots.panels(2, 3.8)
    lines = {
        **{f"counter, quantum {quantum}": contenders for quantum, contenders in STEPS.items()},
        "bound in s": TIMES,
        "bound in s, preemptive": PREEMPTIVE_TIMES,
    }
    for axes, x in zip(grid, ("mean_max_waiting_s", "longest_max_waiting_s"), strict=True):

        def place(contender: Contender, x: str = x) -> tuple[float, float]:
            runs = results["on/off", contender.label]
            return (
                interval([getattr(each, x) for each in runs]).mean,
                interval([each.mean_s_per_token for each in runs]).mean,
            )

        for index, (name, contenders) in enumerate(lines.items()):
            axes.plot(*zip(*map(place, contenders), strict=True), label=name, **plots.look(index, name))
        for contender, marker in ((FCFS, "o"), (RANKING, "*"), (PREEMPTIVE, "P"), (ORACLE, "X")):
            axes.plot(*place(contender), marker, color="black", markersize=8, label=contender.label)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
    grid[0].set(xlabel="Max waiting, mean over requests, s", ylabel="Mean s/token")
    grid[1].set(xlabel="Max waiting, longest, s")
    plots.legend_above(figure, grid[0], columns=4)
    return figure
