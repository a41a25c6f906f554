"""A burst: everything arrives at once (Fu et al. 2024), with orders of different quality."""

from functools import partial

import numpy as np
from benchmarks.experiments import plots
from benchmarks.experiments.bench import Bench, Section, describe, engine
from benchmarks.experiments.contenders import BOUNDED, EVERYONE, FCFS, MLFQ_NOTE, ORACLE, RANKING
from benchmarks.experiments.intervals import Interval, interval, number, ratios
from benchmarks.experiments.preparation import held_out
from benchmarks.experiments.prompts import ALPACA, DATA_SETS, IN_ORDER, DataSet, Numbers, Prompts
from benchmarks.experiments.runs import Figures, Results, Scenario, csv_rows, run_all
from benchmarks.experiments.tables import markdown
from benchmarks.experiments.workloads import drawn
from matplotlib.figure import Figure

from rankserve.client.load import Burst
from rankserve.server.simulation.columns import RequestColumns

TITLE = "A burst of 2,000"
REQUESTS = 2_000
# Mean s/token of 70B on ShareGPT and LMSYS, tau in brackets (Fu et al. 2024).
PAPER = {
    "another sample of the prompt": "0.46 (0.74), 0.34 (0.84)",
    "ranking": "0.78 (0.54), 0.54 (0.62)",
    "classification": "0.84 (0.49), 0.77 (0.58)",
}
BY_SAMPLE = "by another sample"
BY_MEAN = "by the mean of others"


def run(bench: Bench) -> Section:
    results: Results = {}
    profiles = {}
    for data_set in DATA_SETS:
        prompts, profile = held_out(bench, data_set), engine(data_set.profile)
        profiles[data_set.title] = profile
        everyone = partial(burst, bench, prompts, data_set, score=None)
        results |= run_all(bench, [Scenario(data_set.title, profile, everyone)], EVERYONE)
        for name, score in other_orders(prompts).items():
            requests = partial(burst, bench, prompts, data_set, score=score)
            runs = run_all(bench, [Scenario(data_set.title, profile, requests)], [RANKING])
            results[data_set.title, name] = runs[data_set.title, RANKING.label]
    return Section(
        shows=(
            f"When {bench.count(REQUESTS):,} requests arrive at once, FCFS's mean s/token is"
            f" {gains(results, RANKING.label)} times ranking's and {gains(results, ORACLE.label)} times the"
            f" oracle's ({IN_ORDER}), and {gains(results, BOUNDED.label)} times that of bounded ranking,"
            " which serves by arrival until a few answers have told it the pace. Ordered by another real"
            " answer to the same prompt it is"
            f" {number(gain(results, ALPACA, BY_SAMPLE).mean)} times on Alpaca, by the mean of three"
            f" {number(gain(results, ALPACA, BY_MEAN).mean)}: about the most that a ranker can gain."
        ),
        paper=(
            "s/token (tau) of 70B, ShareGPT and LMSYS: "
            + "; ".join(f"{name} {figures}" for name, figures in PAPER.items())
            + ". FCFS is not in that table, and no p99."
        ),
        setting=(
            f"{bench.count(REQUESTS):,} requests at t = 0, drawn with replacement from the held-out prompts."
            f" {'; '.join(describe(profiles[each.title]) for each in DATA_SETS[1:])}; Alpaca on the first of"
            f" these. {MLFQ_NOTE}"
        ),
        tables="\n".join(f"**{each.title}**\n\n{table(results, each)}" for each in DATA_SETS),
        figure=draw(results),
        rows=csv_rows(bench, results, profiles),
    )


def burst(
    bench: Bench, prompts: Prompts, data_set: DataSet, seed: int, *, score: Numbers | None
) -> RequestColumns:
    return drawn(prompts, Burst(), bench.count(REQUESTS), seed, data_set.longest_answer, score)


def other_orders(prompts: Prompts) -> dict[str, Numbers]:
    """Scores that other real answers to the same prompts give; none with one sample a prompt."""
    others = prompts.other_tokens.astype(np.float64)
    if not others.shape[1]:
        return {}
    return {BY_SAMPLE: -others[:, -1], BY_MEAN: -others.mean(axis=1)}


def gain(results: Results, data_set: DataSet, name: str) -> Interval:
    """FCFS's mean s/token over this one's."""
    return ratios(
        [each.mean_s_per_token for each in results[data_set.title, FCFS.label]],
        [each.mean_s_per_token for each in results[data_set.title, name]],
    )


def gains(results: Results, name: str) -> str:
    """`gain` for each data set, without intervals."""
    return " / ".join(number(gain(results, each, name).mean) for each in DATA_SETS)


def table(results: Results, data_set: DataSet) -> str:
    rows = []
    for (title, name), runs in results.items():
        if title == data_set.title:
            rows.append([name, *_cells(runs), str(gain(results, data_set, name))])
    return markdown(
        [
            "",
            "mean s/token",
            "p99 s/token",
            "mean E2E, s",
            "p99 E2E, s",
            "waiting, mean / most",
            "all done after, s",
            "FCFS / this, mean s/token",
        ],
        rows,
    )


def _cells(runs: list[Figures]) -> list[str]:
    waiting = float(np.mean([each.waiting_mean for each in runs]))
    return [
        str(interval([each.mean_s_per_token for each in runs])),
        str(interval([each.p99_s_per_token for each in runs])),
        str(interval([each.mean_e2e_s for each in runs])),
        str(interval([each.p99_e2e_s for each in runs])),
        f"{number(waiting)} / {max(each.waiting_max for each in runs):,}",
        str(interval([each.end_s for each in runs])),
    ]


def draw(results: Results) -> Figure:
    figure, grid = plots.panels(3, 3.4)
    # Not all data sets have every order, but the rows are the same.
    names = list(dict.fromkeys(name for _, name in results))[::-1]
    for axes, data_set in zip(grid, DATA_SETS, strict=True):
        for row, name in enumerate(names):
            if (data_set.title, name) in results:
                factor = gain(results, data_set, name)
                colour = plots.look(0, name)["color"]
                axes.barh(row, factor.mean, xerr=factor.half_width, color=colour, height=0.65)
        axes.set_yticks(range(len(names)), names if axes is grid[0] else [""] * len(names))
        axes.set(title=data_set.title, xlabel="FCFS / this, mean s/token", ylim=(-0.6, len(names) - 0.4))
        axes.grid(visible=False, axis="y")
    return figure
