"""Starvation prevention: the longest waits against the mean (Fu et al. 2024)."""

import numpy as np
from benchmarks.experiments import plots
from benchmarks.experiments.arrivals import on_off
from benchmarks.experiments.bench import Bench, Section, describe, engine
from benchmarks.experiments.contenders import FCFS, ORACLE, RANKING
from benchmarks.experiments.intervals import Interval, interval, number, ratios
from benchmarks.experiments.preparation import held_out
from benchmarks.experiments.prompts import ALPACA
from benchmarks.experiments.runs import Contender, Figures, Results, Scenario, csv_rows, run_all
from benchmarks.experiments.tables import markdown
from benchmarks.experiments.workloads import drawn
from matplotlib.figure import Figure

from rankserve.server.scheduling.policies import Ranking
from rankserve.server.scheduling.starvation import StarvationSettings
from rankserve.server.simulation.columns import RequestColumns
from rankserve.server.simulation.setup import SimulationSettings

TITLE = "Starvation prevention"
REQUESTS = 10_000
ON, OFF = (60.0, 20.0), (15.0, 40.0)
THRESHOLDS, QUANTA = (50, 100, 200, 500, 1000, 2000), (10, 50, 200)
MAX_WAITS_S = (2, 5, 10, 15, 20, 30)
PREEMPTIVE = Contender("ranking, preemptive", Ranking(), SimulationSettings(preemption="recompute"))
# The paper's own setting.
SHIPPED = (200, 10)


def by_steps(threshold: int, quantum: int) -> Contender:
    bound = StarvationSettings(threshold_steps=threshold, quantum_steps=quantum)
    settings = SimulationSettings(starvation=bound, preemption="recompute")
    return Contender(f"{threshold} steps, quantum {quantum}", Ranking(), settings)


def by_time(max_wait_s: float, *, preemptive: bool) -> Contender:
    bound = StarvationSettings(max_wait_s=max_wait_s)
    settings = SimulationSettings(starvation=bound, preemption="recompute" if preemptive else "off")
    return Contender(f"{max_wait_s} s{', preemptive' if preemptive else ''}", Ranking(), settings)


STEPS = {quantum: [by_steps(threshold, quantum) for threshold in THRESHOLDS] for quantum in QUANTA}
TIMES = [by_time(each, preemptive=False) for each in MAX_WAITS_S]
PREEMPTIVE_TIMES = [by_time(each, preemptive=True) for each in MAX_WAITS_S]
CONTENDERS = [
    FCFS,
    RANKING,
    PREEMPTIVE,
    ORACLE,
    *(each for row in STEPS.values() for each in row),
    *TIMES,
    *PREEMPTIVE_TIMES,
]


def run(bench: Bench) -> Section:
    prompts, profile = held_out(bench, ALPACA), engine(ALPACA.profile)

    def requests(seed: int) -> RequestColumns:
        draw = np.random.default_rng(seed)
        arrival_s = on_off(draw, bench.count(REQUESTS), ON, OFF)
        return drawn(prompts, arrival_s, draw, ALPACA.longest_answer)

    scenario = Scenario("on/off", profile, requests)
    results = run_all(bench, [scenario], CONTENDERS)
    shipped = by_steps(*SHIPPED).label
    bound = min(
        (each.label for each in TIMES), key=lambda name: ratio(results, name, "longest_max_waiting_s").mean
    )
    return Section(
        shows=(
            f"The paper's counter at its shipped setting (threshold {SHIPPED[0]}, quantum {SHIPPED[1]}) has"
            f" {ratio(results, shipped, 'longest_max_waiting_s')} of preemptive ranking's longest wait at"
            f" {ratio(results, shipped, 'mean_s_per_token')} of its mean s/token: counted in steps of 10 to"
            " 20 ms, 200 of them pass in three seconds and at this load nearly everything is promoted."
            f" A bound in seconds says what it does: plain ranking with {bound} has"
            f" {ratio(results, bound, 'longest_max_waiting_s', RANKING.label)} of ranking's longest wait, and"
            " bounds below FCFS's own wait cannot be met and turn the order into FCFS."
        ),
        paper=(
            "Max waiting time, averaged over requests, falls by up to 3.4 times for under 30 % more mean"
            " latency; threshold and quantum are counted in iterations, and off in the shipped code."
        ),
        setting=(
            f"{describe(profile)}. {bench.count(REQUESTS):,} Alpaca prompts with real scores, on/off load:"
            f" {ON[0]:g} requests/s for {ON[1]:g} s, {OFF[0]:g} for {OFF[1]:g} s. Max waiting is the paper's:"
            " the larger of TTFT and the longest gap between tokens. The counter preempts by recomputing, as"
            " promotion by quantum makes sense only then."
        ),
        tables=table(results),
        figure=draw_plot(results),
        rows=csv_rows(bench, results, {scenario.label: profile}),
    )


def ratio(results: Results, name: str, figure: str, base: str = PREEMPTIVE.label) -> Interval:
    """A figure over that of plain ranking, preemptive unless said otherwise."""
    return ratios(
        [getattr(each, figure) for each in results["on/off", name]],
        [getattr(each, figure) for each in results["on/off", base]],
    )


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
    plots.legend_above(figure, grid[0])
    return figure
