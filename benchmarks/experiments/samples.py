"""Synthetic data generation: some number of samples as fast as possible (Fu et al. 2024)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
from benchmarks.experiments import plots
from benchmarks.experiments.bench import Bench, Section, describe, engine
from benchmarks.experiments.contenders import CLASSIFICATION, COST_AWARE, FCFS, ORACLE, RANKING
from benchmarks.experiments.intervals import Interval, interval, number, ratios
from benchmarks.experiments.preparation import held_out
from benchmarks.experiments.prompts import ALPACA, DATA_SETS, IN_ORDER, DataSet
from benchmarks.experiments.tables import markdown
from benchmarks.experiments.workloads import drawn
from matplotlib.figure import Figure

from rankserve.client.load import Burst
from rankserve.server.simulation.setup import SimulationSettings
from rankserve.server.simulation.simulator import simulate

TITLE = "1,000 samples as fast as possible"
PROMPTS, WANTED, MINUTES = 30_000, 1_000, 5
SHOWN = (FCFS, CLASSIFICATION, RANKING, COST_AWARE, ORACLE)
# Seconds until 1,000 samples of 70B on ShareGPT and LMSYS (Fu et al. 2024).
PAPER = {"another sample of the prompt": "102, 34.6", "ranking": "232, 59.7", "classification": "266, 102"}


@dataclass(slots=True, frozen=True)
class Generation:
    """One run.

    Attributes:
        seconds: until the wanted samples were there.
        mean_tokens: their mean length.
        longest_share: of them that are longer than three in four of all answers.
        in_minutes: samples that were there after MINUTES.
        mean_tokens_in_minutes: their mean length.
        waiting_max: queue depth.
    """

    seconds: float
    mean_tokens: float
    longest_share: float
    in_minutes: int
    mean_tokens_in_minutes: float
    waiting_max: int


Results = dict[tuple[str, str], list[Generation]]
Measure = Callable[[Generation], float]


def run(bench: Bench) -> Section:
    jobs = [(data_set, seed) for data_set in DATA_SETS for seed in bench.seeds]
    results: Results = {}
    with ThreadPoolExecutor(bench.threads) as pool:
        for (data_set, _), runs in zip(jobs, pool.map(lambda job: generate(bench, *job), jobs), strict=True):
            for contender, generation in zip(SHOWN, runs, strict=True):
                results.setdefault((data_set.title, contender.label), []).append(generation)
    faster = [number(speedup(results, each, RANKING.label).mean) for each in DATA_SETS]
    tokens = {
        each.label: number(float(np.mean([run.mean_tokens for run in results[ALPACA.title, each.label]])))
        for each in (FCFS, RANKING)
    }
    return Section(
        shows=(
            f"Ranking has {bench.count(WANTED):,} samples {' / '.join(faster)} times sooner than FCFS"
            f" ({IN_ORDER}). It gets there by taking the short ones, on"
            f" Alpaca of {tokens[RANKING.label]} tokens on average instead of {tokens[FCFS.label]}: whoever"
            " needs all kinds of samples must not stop at a count."
        ),
        paper=(
            "Seconds until 1,000 samples of 70B, ShareGPT and LMSYS: "
            + "; ".join(f"{name} {seconds}" for name, seconds in PAPER.items())
            + "; 2.4 to 6.5 times less than FCFS. It does not say which samples those are."
        ),
        setting=(
            f"{bench.count(PROMPTS):,} prompts at t = 0, drawn with replacement from the held-out ones;"
            f" the first {bench.count(WANTED):,} to finish count, and those within {MINUTES} minutes."
            f" {'; '.join(describe(engine(each.profile)) for each in DATA_SETS[1:])}; Alpaca on the first."
        ),
        tables="\n".join(f"**{each.title}**\n\n{table(results, each)}" for each in DATA_SETS),
        figure=draw(results),
        rows=csv_rows(bench, results),
    )


def generate(bench: Bench, data_set: DataSet, seed: int) -> list[Generation]:
    """One run of each policy on the same prompts."""
    prompts = held_out(bench, data_set)
    requests = drawn(prompts, Burst(), bench.count(PROMPTS), seed, data_set.longest_answer)
    long = np.percentile(requests.true_output_tokens, 75)
    generations = []
    for contender in SHOWN:
        outcome = simulate(requests, contender.policy, engine(data_set.profile), SimulationSettings())
        order = np.argsort(outcome.end_s, kind="stable")
        tokens = requests.true_output_tokens[order]
        wanted = bench.count(WANTED)
        in_minutes = int(np.searchsorted(outcome.end_s[order], 60 * MINUTES, side="right"))
        generations.append(
            Generation(
                seconds=float(outcome.end_s[order[wanted - 1]]),
                mean_tokens=float(tokens[:wanted].mean()),
                longest_share=float((tokens[:wanted] > long).mean()),
                in_minutes=in_minutes,
                mean_tokens_in_minutes=float(tokens[:in_minutes].mean()),
                waiting_max=outcome.totals.waiting_max,
            )
        )
    return generations


def speedup(results: Results, data_set: DataSet, name: str) -> Interval:
    """FCFS's time to the wanted samples over this one's."""
    runs = results[data_set.title, FCFS.label], results[data_set.title, name]
    return ratios([each.seconds for each in runs[0]], [each.seconds for each in runs[1]])


def table(results: Results, data_set: DataSet) -> str:
    columns: dict[str, Measure] = {
        "seconds": lambda each: each.seconds,
        "their mean tokens": lambda each: each.mean_tokens,
        f"samples in {MINUTES} min": lambda each: each.in_minutes,
        "their mean tokens ": lambda each: each.mean_tokens_in_minutes,
    }
    rows = []
    for contender in SHOWN:
        runs = results[data_set.title, contender.label]
        cells = [str(interval([measure(each) for each in runs])) for measure in columns.values()]
        share = f"{np.mean([each.longest_share for each in runs]):.1%}"
        depth = f"{max(each.waiting_max for each in runs):,}"
        factor = str(speedup(results, data_set, contender.label))
        rows.append([contender.label, *cells[:2], share, factor, *cells[2:], depth])
    names = list(columns)
    header = [*names[:2], "of the longest quarter", "FCFS's time / this", *names[2:], "most waiting"]
    return markdown(["", *header], rows)


def csv_rows(bench: Bench, results: Results) -> list[dict[str, object]]:
    return [
        {"workload": title, "policy": name, "seed": seed, **asdict(generation)}
        for (title, name), runs in results.items()
        for seed, generation in zip(bench.seeds, runs, strict=True)
    ]


def draw(results: Results) -> Figure:
    figure, (left, right) = plots.panels(2, 3.4)
    measures: dict[str, Measure] = {
        "Seconds until 1,000 samples": lambda each: each.seconds,
        f"Samples in {MINUTES} minutes": lambda each: each.in_minutes,
    }
    width = 0.8 / len(SHOWN)
    for axes, (title, measure) in zip((left, right), measures.items(), strict=True):
        for index, contender in enumerate(SHOWN):
            means = [
                interval([measure(run) for run in results[each.title, contender.label]]) for each in DATA_SETS
            ]
            axes.bar(
                np.arange(len(DATA_SETS)) + (index - (len(SHOWN) - 1) / 2) * width,
                [each.mean for each in means],
                width,
                yerr=[each.half_width for each in means],
                color=plots.look(index, contender.label)["color"],
                label=contender.label,
            )
        axes.set_xticks(range(len(DATA_SETS)), [each.title.replace(" (", "\n(") for each in DATA_SETS])
        axes.set_title(title)
        axes.grid(visible=False, axis="x")
    plots.legend_above(figure, left)
    return figure
