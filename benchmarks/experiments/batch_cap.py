"""Where ordering stops mattering: the batch cap, the KV cache, and KV blocks reserved at admission."""

from functools import partial

import numpy as np
from benchmarks.experiments import plots
from benchmarks.experiments.bench import Bench, Section, describe, engine
from benchmarks.experiments.contenders import FCFS, ORACLE, RANKING
from benchmarks.experiments.intervals import Interval, interval, number, percent, ratios
from benchmarks.experiments.preparation import held_out
from benchmarks.experiments.prompts import ALPACA, MMLU_8B, DataSet, Prompts
from benchmarks.experiments.runs import Contender, Figures, Results, Scenario, csv_rows, run_all
from benchmarks.experiments.tables import markdown
from benchmarks.experiments.workloads import capacity, drawn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankserve.client.evaluation.plots import COLOURS
from rankserve.client.load import Poisson
from rankserve.server.simulation.columns import RequestColumns
from rankserve.server.simulation.setup import SimulationSettings

TITLE = "Batch cap and KV cache"
REQUESTS = 5_000
BATCH_CAPS = (8, 16, 32, 64, 128, 256)
RATE = 40.0
WIDE = 256
KV_BLOCKS = (512, 1024, 2048, 4096, 8192)
# Loads that an engine with ample KV bears.
KV_RATES = {ALPACA: 60.0, MMLU_8B: 16.0}
RESERVATIONS = ("none", "predicted", "max")


def reserving(contender: Contender, reservation: str) -> Contender:
    name = f"{contender.label}, reserve {reservation}"
    return Contender(name, contender.policy, SimulationSettings(kv_reservation=reservation))


RESERVING = [reserving(each, how) for each in (FCFS, RANKING) for how in RESERVATIONS]


def run(bench: Bench) -> Section:
    alpaca = held_out(bench, ALPACA)
    engines = {f"cap {cap}": engine(ALPACA.profile, cap) for cap in BATCH_CAPS}
    at_rate = partial(requests, bench, alpaca, ALPACA)
    most = {name: capacity(at_rate(bench.seeds[0], rate=RATE), each) for name, each in engines.items()}
    fixed = [Scenario(f"{name}, fixed", each, partial(at_rate, rate=RATE)) for name, each in engines.items()]
    own = [
        Scenario(f"{name}, own", each, partial(at_rate, rate=most[name])) for name, each in engines.items()
    ]
    caps = run_all(bench, [*fixed, *own], (FCFS, RANKING, ORACLE))
    memory = [
        Scenario(
            kv_label(data_set, blocks),
            engine(data_set.profile, WIDE, blocks),
            partial(requests, bench, held_out(bench, data_set), data_set, rate=rate),
        )
        for data_set, rate in KV_RATES.items()
        for blocks in KV_BLOCKS
    ]
    kv = run_all(bench, memory, RESERVING)
    profiles = {each.label: each.profile for each in (*fixed, *own, *memory)}
    tight, ample = kv_label(ALPACA, KV_BLOCKS[0]), kv_label(ALPACA, KV_BLOCKS[-1])
    return Section(
        shows=(
            f"Order matters as long as requests wait: at {RATE:g} requests/s FCFS's mean s/token is"
            f" {number(factor(caps, 'cap 16, fixed').mean)} times ranking's with a batch cap of 16,"
            f" {number(factor(caps, 'cap 64, fixed').mean)} times with 64 and"
            f" {number(factor(caps, 'cap 128, fixed').mean)} times with 128, and a KV cache that is short"
            f" acts like a small cap ({number(kv_factor(kv, tight).mean)} times with {KV_BLOCKS[0]:,} blocks,"
            f" {number(kv_factor(kv, ample).mean)} with {KV_BLOCKS[-1]:,}). Reserving KV for the predicted"
            f" p90 ends nearly all evictions (of ranking with {KV_BLOCKS[0]:,} blocks"
            f" {evictions(kv, tight, 'none')}, {evictions(kv, tight, 'predicted')} so, on Alpaca) and costs"
            f" less than reserving the maximum, but at {delay(kv, tight, 'predicted')} times the mean s/token"
            f" of reserving nothing ({delay(kv, tight, 'max')} for the maximum): where an evicted request is"
            " recomputed in a fraction of a second, it is cheaper to evict."
        ),
        paper="Neither is varied; the batch limit of its runs is not stated.",
        setting=(
            f"Batch caps: {describe(engines[f'cap {BATCH_CAPS[0]}'])} and so on; {bench.count(REQUESTS):,}"
            f" Alpaca prompts with real scores, Poisson at {RATE:g}/s or at the capacity of each engine. KV:"
            f" {describe(memory[0].profile)} and so on; {bench.count(REQUESTS):,} prompts with real scores,"
            " Poisson, and a maximum of 512 (Alpaca) and 2,048 tokens (MMLU-Pro) to an answer. An engine out"
            " of blocks evicts and recomputes. Runs above capacity depend on their length."
        ),
        tables="\n".join([cap_table(caps, most), *(kv_table(kv, each) for each in KV_RATES)]),
        figure=draw_plot(caps, kv),
        rows=csv_rows(bench, {**caps, **kv}, profiles),
    )


def requests(bench: Bench, prompts: Prompts, data_set: DataSet, seed: int, *, rate: float) -> RequestColumns:
    arrivals = Poisson(rate, seed)
    return drawn(prompts, arrivals, bench.count(REQUESTS), seed, data_set.longest_answer)


def factor(results: Results, scenario: str, over: str = RANKING.label, base: str = FCFS.label) -> Interval:
    """Mean s/token of `base` over that of `over`."""
    return ratios(
        [each.mean_s_per_token for each in results[scenario, base]],
        [each.mean_s_per_token for each in results[scenario, over]],
    )


def kv_factor(results: Results, scenario: str) -> Interval:
    """FCFS over ranking, neither reserving."""
    return factor(results, scenario, reserving(RANKING, "none").label, reserving(FCFS, "none").label)


def kv_label(data_set: DataSet, blocks: int) -> str:
    return f"{data_set.title}, {blocks} blocks"


def delay(results: Results, scenario: str, reservation: str) -> str:
    """Ranking's mean s/token over that of reserving nothing."""
    runs = [results[scenario, reserving(RANKING, each).label] for each in (reservation, "none")]
    mean = ratios([each.mean_s_per_token for each in runs[0]], [each.mean_s_per_token for each in runs[1]])
    return number(mean.mean)


def evictions(results: Results, scenario: str, reservation: str) -> str:
    runs = results[scenario, reserving(RANKING, reservation).label]
    return number(float(np.mean([each.preemptions for each in runs])))


def cap_table(results: Results, most: dict[str, float]) -> str:
    parts = []
    titles = {"fixed": f"Poisson, {RATE:g} requests/s", "own": "Poisson, at each engine's own capacity"}
    for kind, title in titles.items():
        rows = []
        for name, rate in most.items():
            scenario = f"{name}, {kind}"
            rows.append(
                [
                    name.removeprefix("cap "),
                    number(rate),
                    *(_latency(results[scenario, each.label]) for each in (FCFS, RANKING, ORACLE)),
                    str(factor(results, scenario)),
                    _p99_ratio(results, scenario),
                    _depth(results[scenario, FCFS.label]),
                    _depth(results[scenario, RANKING.label]),
                ]
            )
        header = [
            "batch cap",
            "capacity, requests/s",
            *(f"{each}, s/token" for each in ("FCFS", "ranking", "oracle")),
        ]
        header += ["FCFS / ranking", "p99 E2E, ranking / FCFS", "waiting, FCFS", "waiting, ranking"]
        parts.append(
            f"**{title}**; s/token: mean, below it p99; waiting: mean / most\n\n{markdown(header, rows)}"
        )
    return "\n".join(parts)


def kv_table(results: Results, data_set: DataSet) -> str:
    rows = []
    for blocks in KV_BLOCKS:
        for contender in RESERVING:
            runs = results[kv_label(data_set, blocks), contender.label]
            rows.append(
                [
                    f"{blocks:,}",
                    contender.label,
                    str(interval([each.mean_s_per_token for each in runs])),
                    str(interval([each.p99_s_per_token for each in runs])),
                    str(interval([each.p99_e2e_s for each in runs])),
                    str(interval([each.preemptions for each in runs])),
                    percent([each.kv_mean for each in runs]),
                    f"{max(each.kv_max for each in runs):.0%}",
                    _depth(runs),
                ]
            )
    header = ["mean s/token", "p99 s/token", "p99 E2E, s", "evictions", "KV in use, mean", "most"]
    table = markdown(["KV blocks", "", *header, "waiting, mean / most"], rows)
    title = f"{data_set.title}, batch cap {WIDE}, Poisson, {KV_RATES[data_set]:g} requests/s"
    return f"**KV cache**, {title}\n\n{table}"


def _latency(runs: list[Figures]) -> str:
    mean = interval([each.mean_s_per_token for each in runs])
    return f"{mean}<br>{interval([each.p99_s_per_token for each in runs])}"


def _p99_ratio(results: Results, scenario: str) -> str:
    runs = results[scenario, RANKING.label], results[scenario, FCFS.label]
    return str(ratios([each.p99_e2e_s for each in runs[0]], [each.p99_e2e_s for each in runs[1]]))


def _depth(runs: list[Figures]) -> str:
    waiting = float(np.mean([each.waiting_mean for each in runs]))
    return f"{number(waiting)} / {max(each.waiting_max for each in runs):,}"


def draw_plot(caps: Results, kv: Results) -> Figure:
    figure, (left, middle, right) = plots.panels(3, 3.8)
    for index, (kind, title) in enumerate({"fixed": f"at {RATE:g}/s", "own": "at own capacity"}.items()):
        factors = [factor(caps, f"cap {cap}, {kind}") for cap in BATCH_CAPS]
        _line(left, BATCH_CAPS, factors, index, title)
    left.set(xlabel="Batch cap, sequences", ylabel="FCFS / ranking, mean s/token", title="Batch cap")
    for index, (data_set, rate) in enumerate(KV_RATES.items()):
        factors = [kv_factor(kv, kv_label(data_set, blocks)) for blocks in KV_BLOCKS]
        _line(middle, KV_BLOCKS, factors, index, f"{data_set.title.split()[0]}, {rate:g}/s")
    middle.set(xlabel="KV blocks", title="KV cache")
    for axes, ticks in ((left, BATCH_CAPS), (middle, KV_BLOCKS)):
        axes.set_xscale("log")
        axes.set_xticks(ticks, map(str, ticks), rotation=45)
        axes.minorticks_off()
        axes.axhline(1, color="black", linewidth=0.8)
        # Room for the legend.
        axes.set_ylim(0, 1.3 * axes.get_ylim()[1])
        axes.legend(loc="upper right")
    for index, reservation in enumerate(RESERVATIONS):
        label = reserving(RANKING, reservation).label
        means = [
            interval([each.mean_s_per_token for each in kv[kv_label(ALPACA, blocks), label]])
            for blocks in KV_BLOCKS
        ]
        _line(right, KV_BLOCKS, means, index, f"reserve {reservation}")
    right.set(xscale="log", yscale="log", xlabel="KV blocks", ylabel="Mean s/token", title="Ranking, Alpaca")
    right.set_xticks(KV_BLOCKS, map(str, KV_BLOCKS), rotation=45)
    right.minorticks_off()
    plots.plain_numbers(right.yaxis)
    right.legend()
    return figure


def _line(axes: Axes, x: tuple[int, ...], means: list[Interval], index: int, name: str) -> None:
    axes.errorbar(
        x,
        [each.mean for each in means],
        yerr=[each.half_width for each in means],
        color=COLOURS[index],
        marker=plots.MARKERS[index],
        markersize=4,
        label=name,
    )
