"""The tail: what each policy and setting keeps of ranking's gain, against what it does to the slowest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from benchmarks.experiments import plots
from benchmarks.experiments.bench import Bench, Section, describe, engine
from benchmarks.experiments.contenders import BOUNDED, CLASSIFICATION, COST_AWARE, FCFS, MLFQ, ORACLE, RANKING
from benchmarks.experiments.intervals import Interval, interval, number, ratios
from benchmarks.experiments.prompts import ALPACA
from benchmarks.experiments.runs import Contender, Figures, Results, Scenario, csv_rows, run_all
from benchmarks.experiments.tables import markdown
from benchmarks.experiments.trace import FILE, fitting
from benchmarks.experiments.workloads import alpaca_lengths, capacity, degraded
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankserve.client.evaluation.degraded import DegradedScores, degraded_scores
from rankserve.client.load import DrawnArrivals, Gamma, OnOff, Poisson
from rankserve.server.engines.simulated.profiles import Profile
from rankserve.server.scheduling.policies import AgedRanking, HighestResponseRatioNext, Policy, Ranking
from rankserve.server.scheduling.policies.elementwise import at_least_one, log
from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.starvation import StarvationSettings
from rankserve.server.simulation.columns import RequestColumns
from rankserve.server.simulation.setup import SimulationSettings

TITLE = "The tail: mean against p99"
REQUESTS, TAU = 4_000, 0.6
ON, OFF = (60.0, 20.0), (15.0, 40.0)
GAMMA_RATE, GAMMA_VARIATION = 30.0, 3.0
OVERLOAD_RATE = 60.0


@dataclass(slots=True, frozen=True)
class LogAgeing(Policy):
    """By predicted length, divided by e for each `seconds` of waiting: for comparison only.

    Attributes:
        seconds: of waiting that make up for e times the length.
    """

    seconds: float
    name: ClassVar[str] = "log_ageing"

    def key(self, request: Request) -> float:
        return log(at_least_one(request.expected_tokens)) + request.arrival_s / self.seconds


@dataclass(slots=True, frozen=True)
class ShortLane(Policy):
    """Predicted lengths up to a limit first, all else after them by arrival: for comparison only.

    Attributes:
        limit_tokens: longest prediction in the lane.
        ranked: whether the lane is in rank order; else by arrival.
    """

    limit_tokens: float
    ranked: bool
    name: ClassVar[str] = "short_lane"

    def key(self, request: Request) -> float:
        outside = request.expected_tokens > self.limit_tokens
        within = request.expected_tokens if self.ranked else request.arrival_s
        return outside * (_BEHIND + request.arrival_s) + (1 - outside) * within


# More than any arrival or length.
_BEHIND = 1e9


def bounded(label: str, policy: Policy, max_wait_s: float) -> Contender:
    return Contender(label, policy, SimulationSettings(starvation=StarvationSettings(max_wait_s=max_wait_s)))


def families(limits: dict[float, float]) -> dict[str, list[Contender]]:
    """Settings of the same idea, a line each in the plot.

    Args:
        limits: predicted length below which this share of the requests lies, by share.
    """
    return {
        "linear ageing": [
            Contender(f"linear ageing, {rate} tokens/s", AgedRanking(float(rate)))
            for rate in (1, 3, 10, 30, 100, 300)
        ],
        "log ageing": [
            Contender(f"log ageing, {seconds:g} s", LogAgeing(seconds)) for seconds in (1.25, 2.5, 5, 10, 20)
        ],
        "wait bound over ranking": [
            bounded(f"ranking, at most {seconds} s", Ranking(), seconds)
            for seconds in (6, 8, 10, 12, 14, 17, 20, 30)
        ],
        "lane of the shortest": [
            Contender(f"lane of the shortest {share:.0%}", ShortLane(limits[share], ranked=False))
            for share in (0.5, 0.7)
        ],
        "ranked lane + wait bound": [
            bounded(
                f"ranked lane of the shortest 70%, at most {seconds} s",
                ShortLane(limits[0.7], ranked=True),
                seconds,
            )
            for seconds in (8, 12, 17)
        ],
    }


SINGLE = [
    FCFS,
    RANKING,
    CLASSIFICATION,
    COST_AWARE,
    Contender("HRRN", HighestResponseRatioNext()),
    MLFQ,
    ORACLE,
]


# A line here puts a policy or setting into every table and plot.
SINGLE = [
    FCFS,
    RANKING,
    BOUNDED,
    CLASSIFICATION,
    COST_AWARE,
    Contender("HRRN", HighestResponseRatioNext()),
    MLFQ,
    ORACLE,
]
# What the plots name beside the families.
STARS = (FCFS, RANKING, BOUNDED, ORACLE)
# Asked of the bounded policy: share kept, p99 E2E and longest TTFT over FCFS's.
TARGET = (0.92, 1.15, 1.10)


def run(bench: Bench) -> Section:
    profile = engine(ALPACA.profile)
    loads = make_loads(bench, profile)
    results: Results = {}
    for load in loads:
        contenders = [*SINGLE, *(each for line in families(load.limits).values() for each in line)]
        results |= run_all(bench, [load.scenario], contenders)
    labels = [load.scenario.label for load in loads]
    plain = shares(results, labels[0], RANKING.label)
    elsewhere = ", ".join(f"{point(results, name)} ({name})" for name in labels[1:])
    return Section(
        shows=(
            "Bounded ranking, the server's default, keeps"
            f" {point(results, labels[0])} on the on/off load, where plain ranking has"
            f" {number(plain[1].mean)} and {number(plain[2].mean)} times; with the same settings"
            f" {elsewhere}, while bounds in seconds and ageing rates that suit one load are far too tight or"
            f" too loose on the next. {dominated(results, labels)} In overload a bound relative to FCFS"
            " bounds nothing in seconds: every wait, FCFS's too, grows until arrivals stop, and the only help"
            " is to refuse requests."
        ),
        paper="Mean latency only; starvation prevention is judged by max waiting time, and no p99 is given.",
        setting=(
            f"{describe(profile)}. {bench.count(REQUESTS):,} requests a run with lengths of Alpaca,"
            f" Vicuna-7B, or of {FILE}, and scores degraded to tau {TAU}, calibrated on the whole file."
            f" On/off: {ON[0]:g} requests/s for {ON[1]:g} s, {OFF[0]:g} for {OFF[1]:g} s. Trace: a window of"
            " the trace, at a place drawn by the seed, sped up until its mean rate is its capacity. Gamma:"
            f" {GAMMA_RATE:g}/s, coefficient of variation {GAMMA_VARIATION:g}. Overload: Poisson,"
            f" {OVERLOAD_RATE:g}/s. *Kept* is the share of plain ranking's reduction of FCFS's mean s/token."
            f" The settings of bounded ranking were chosen on loads like these ({CHOSEN_ON}) with other"
            " seeds: they are not tuned to each, nor unseen."
        ),
        tables="\n".join(
            f"**{load.scenario.label}**\n\n{table(results, load.scenario.label)}" for load in loads
        ),
        figure=draw(results, labels, families(loads[0].limits)),
        rows=csv_rows(bench, results, dict.fromkeys(labels, profile)),
    )


CHOSEN_ON = "on/off, gamma, Poisson and the trace, in another simulator"


@dataclass(slots=True, frozen=True)
class Load:
    """A scenario, and below which predicted length each share of its requests lies."""

    scenario: Scenario
    limits: dict[float, float]


def make_loads(bench: Bench, profile: Profile) -> list[Load]:
    prompt_tokens, lengths = alpaca_lengths(bench.data)
    count = bench.count(REQUESTS)
    # Degrading takes longer than simulating, and every load has the same scores.
    alpaca_scores = {seed: degraded_scores(lengths, TAU, seed) for seed in bench.seeds}

    def alpaca(seed: int, arrivals: Callable[[int], DrawnArrivals]) -> RequestColumns:
        chosen = np.random.default_rng(seed).permutation(len(lengths))[:count]
        arrival_s = np.array(arrivals(seed).draw(len(chosen)))
        return degraded(arrival_s, prompt_tokens, lengths, alpaca_scores[seed], chosen)

    arrival_s, trace_prompts, trace_answers = fitting(bench, profile)
    trace_scores = {seed: degraded_scores(trace_answers, TAU, seed) for seed in bench.seeds}

    def window(seed: int) -> RequestColumns:
        size = min(count, len(arrival_s) // 2)
        start = int(np.random.default_rng(seed).integers(0, len(arrival_s) - size))
        chosen = np.arange(start, start + size)
        since_s = arrival_s[chosen] - arrival_s[start]
        recorded = degraded(since_s, trace_prompts, trace_answers, trace_scores[seed], chosen)
        speed = capacity(recorded, profile) / (size / since_s[-1])
        return degraded(since_s / speed, trace_prompts, trace_answers, trace_scores[seed], chosen)

    arrivals: dict[str, Callable[[int], DrawnArrivals]] = {
        "on/off": lambda seed: OnOff(*ON, *OFF, seed),
        "gamma": lambda seed: Gamma(GAMMA_RATE, GAMMA_VARIATION, seed),
        "overload": lambda seed: Poisson(OVERLOAD_RATE, seed),
    }
    alpaca_limits = _limits(alpaca_scores[bench.seeds[0]])
    loads = {
        name: Load(Scenario(name, profile, partial(alpaca, arrivals=process)), alpaca_limits)
        for name, process in arrivals.items()
    }
    trace = Load(
        Scenario("recorded trace at capacity", profile, window), _limits(trace_scores[bench.seeds[0]])
    )
    return [loads["on/off"], trace, loads["gamma"], loads["overload"]]


def _limits(scores: DegradedScores) -> dict[float, float]:
    return {share: float(np.quantile(scores.expected_tokens, share)) for share in (0.5, 0.7)}


def shares(results: Results, load: str, name: str) -> tuple[Interval, Interval, Interval]:
    """(share of ranking's gain kept, p99 E2E over FCFS's, longest TTFT over FCFS's)."""
    runs, fcfs, ranking = (results[load, each] for each in (name, FCFS.label, RANKING.label))
    gained = [base.mean_s_per_token - run.mean_s_per_token for run, base in zip(runs, fcfs, strict=True)]
    most = [base.mean_s_per_token - best.mean_s_per_token for best, base in zip(ranking, fcfs, strict=True)]
    return (
        # Whoever keeps nothing of nothing keeps all of it.
        interval([gain / whole if whole else 1.0 for gain, whole in zip(gained, most, strict=True)]),
        ratios([each.p99_e2e_s for each in runs], [each.p99_e2e_s for each in fcfs]),
        ratios([each.longest_ttft_s for each in runs], [each.longest_ttft_s for each in fcfs]),
    )


def point(results: Results, load: str) -> str:
    """Bounded ranking's three figures on a load, in words."""
    kept, p99, ttft = (each.mean for each in shares(results, load, BOUNDED.label))
    return (
        f"{kept:.0%} of plain ranking's gain in mean s/token at {number(p99)} times FCFS's p99 E2E and"
        f" {number(ttft)} times its longest TTFT"
        if load == "on/off"
        else f"{kept:.0%} at {number(p99)} and {number(ttft)} times"
    )


def dominated(results: Results, loads: Sequence[str]) -> str:
    """Which settings are at least as good as bounded ranking in all three figures, on each load."""
    oracle = {FCFS.label, ORACLE.label, BOUNDED.label}
    better = []
    for load in loads:
        ours = shares(results, load, BOUNDED.label)
        for name in dict.fromkeys(each for place, each in results if place == load and each not in oracle):
            kept, p99, ttft = shares(results, load, name)
            if kept.mean >= ours[0].mean and p99.mean <= ours[1].mean and ttft.mean <= ours[2].mean:
                better.append(f"{name} ({load})")
    if not better:
        return "Nothing else in these tables is as good in all three figures, on any of these loads."
    return f"As good or better in all three figures: {', '.join(better)}."


def table(results: Results, load: str) -> str:
    rows = []
    for place, name in results:
        if place == load:
            runs = results[place, name]
            kept, p99, ttft = shares(results, load, name)
            cells = [f"{kept.mean:.1%} ± {kept.half_width:.1%}", str(p99), str(ttft), *_cells(runs)]
            rows.append([f"**{name}**" if name == BOUNDED.label else name, *cells])
    header = ["kept", "p99 E2E / FCFS's", "longest TTFT / FCFS's", "mean s/token", "p99 s/token"]
    header += ["p99 E2E, s", "longest TTFT, s", "waiting, mean / most"]
    return markdown(["", *header], rows)


def _cells(runs: list[Figures]) -> list[str]:
    waiting = float(np.mean([each.waiting_mean for each in runs]))
    return [
        str(interval([each.mean_s_per_token for each in runs])),
        str(interval([each.p99_s_per_token for each in runs])),
        str(interval([each.p99_e2e_s for each in runs])),
        str(interval([each.longest_ttft_s for each in runs])),
        f"{number(waiting)} / {max(each.waiting_max for each in runs):,}",
    ]


def draw(results: Results, loads: Sequence[str], lines: dict[str, list[Contender]]) -> Figure:
    figure, grid = plots.panels(len(loads), 5.6, rows=2)
    for row, limit in enumerate(TARGET[1:]):
        for axes, load in zip(grid[row * len(loads) :], loads, strict=False):
            for index, (name, contenders) in enumerate(lines.items()):
                _points(axes, results, load, contenders, row, name, **plots.look(index, name))
            for contender, marker in zip(STARS, "o^*X", strict=True):
                colour = plots.POLICIES[BOUNDED.label]["color"] if contender is BOUNDED else "black"
                look = {
                    "color": colour,
                    "marker": marker,
                    "markersize": 12 if contender is BOUNDED else 8,
                    "linestyle": "",
                    "zorder": 3,
                }
                _points(axes, results, load, [contender], row, contender.label, **look)
            if row == 0:
                axes.set_title(load)
            if load == loads[0]:
                axes.axvline(limit, color="black", linewidth=0.6, linestyle=":")
                axes.axhline(TARGET[0], color="black", linewidth=0.6, linestyle=":")
            axes.set(xlabel=("p99 E2E / FCFS's", "Longest TTFT / FCFS's")[row], ylim=(-0.05, 1.15))
            axes.set_xscale("log")
            axes.minorticks_off()
            _ticks(axes)
        grid[row * len(loads)].set_ylabel("Share of ranking's gain kept")
    plots.legend_above(figure, grid[0], columns=5)
    return figure


def _ticks(axes: Axes) -> None:
    low, high = axes.get_xlim()
    choices = (1, 1.05, 1.1, 1.2), (1, 1.2, 1.5, 2, 3), (1, 2, 5, 10, 20)
    ticks = [tick for tick in choices[int(high > 1.25) + int(high > 4)] if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])


def _points(
    axes: Axes,
    results: Results,
    load: str,
    contenders: Sequence[Contender],
    row: int,
    name: str,
    **look: Any,
) -> None:
    # The limits of lanes differ between loads, their names do not.
    points = [shares(results, load, each.label) for each in contenders]
    axes.plot([each[1 + row].mean for each in points], [each[0].mean for each in points], label=name, **look)
