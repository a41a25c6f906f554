"""The section on quality against cost, in Markdown, and its plot."""

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.experiments import plots
from benchmarks.experiments.tables import markdown
from benchmarks.rankers.cost import Cost, Size
from benchmarks.rankers.timing import BATCH
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from rankserve.client.evaluation.plots import BASELINE_COLOUR, COLOURS

TITLE = "Quality against cost"
MEGABYTE = 1e6

_COSTS: dict[str, Callable[[Size], float]] = {
    "one prompt at a time, p50": lambda size: size.speed.alone_p50_us,
    f"calls of {BATCH} prompts": lambda size: size.speed.batched_us,
}


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which (cost, quality) no other point beats: none is as cheap and better, or cheaper and as good."""
    return [
        i
        for i, (cost, quality) in enumerate(points)
        if not any(
            (other_cost <= cost and other > quality) or (other_cost < cost and other >= quality)
            for other_cost, other in points
        )
    ]


def render(cost: Cost) -> str:
    """The section in Markdown, without its plot."""
    refused = "".join(f"\n{name} was not exported: {reason}\n" for name, reason in cost.refused.items())
    return f"{_shows(cost)}\n\n{_setting(cost)}\n\n{_table(cost)}{refused}"


def _on_frontier(cost: Cost) -> dict[str, set[str]]:
    """Names of the sizes on the frontier, by kind of cost."""
    return {
        kind: {cost.sizes[i].name for i in frontier([(of(each), each.tau.value) for each in cost.sizes])}
        for kind, of in _COSTS.items()
    }


def _shows(cost: Cost) -> str:
    by_name = {each.name: each for each in cost.sizes}
    best = max(cost.sizes, key=lambda each: each.tau.value)
    text = (
        f"The best order, tau {best.tau}, is that of {best.name} at {best.speed.alone_p50_us:,.0f} µs for "
        f"one prompt and {best.speed.batched_us:,.0f} µs each in calls of {BATCH}."
    )
    default = by_name.get(cost.default)
    if default is None:
        return f"{text} That of the shipped default, {cost.default}, was not exported."
    where = [
        f"{'on' if default.name in names else 'not on'} the frontier of {kind}"
        for kind, names in _on_frontier(cost).items()
    ]
    return (
        f"{text} The architecture of the shipped default, {default.name}, has tau {default.tau} at "
        f"{default.speed.alone_p50_us:,.0f} µs and {default.speed.batched_us:,.0f} µs, and is "
        f"{' and '.join(where)}."
    )


def _setting(cost: Cost) -> str:
    return (
        f"*Setting:* variants of `{cost.base}` in everything but the model (from scratch at a learning rate "
        f"of 5e-4), seed {cost.seed}, exported in int8; tau against the single sample of {cost.prompts:,} "
        "test prompts, with its 95 % bootstrap interval over prompts. Timed on one core "
        "(`sched_setaffinity`), text in, score out, tokenizer included, as the server scores (`OnnxScorer`, "
        f"one thread), in {cost.effort.rounds} rounds in each of which all take turns: {cost.effort.alone} "
        f"prompts one at a time, and the whole test split in calls of {BATCH}. Medians over rounds. The "
        f"linear model runs in scikit-learn, called with as many prompts. {cost.conditions}"
    )


def _table(cost: Cost) -> str:
    alone, batched = _on_frontier(cost).values()
    rows = []
    for each in cost.sizes:
        speed, name = each.speed, each.name
        low, high = speed.batched_range_us
        rows.append(
            [
                f"**{name}** (default): {each.model}" if name == cost.default else f"{name}: {each.model}",
                str(each.tau),
                f"{speed.alone_p50_us:,.0f}{_mark(name in alone)}",
                f"{speed.alone_p99_us:,.0f}",
                f"{speed.batched_us:,.0f}{_mark(name in batched)}",
                f"{low:,.0f} to {high:,.0f}",
                f"{1e6 / speed.batched_us:,.0f}",
                f"{each.parameters / 1e6:.2f} M",
                f"{each.file_bytes / MEGABYTE:.1f} MB",
            ]
        )
    header = [
        "µs on one core; * on the frontier",
        "tau",
        "alone, p50",
        "alone, p99",
        f"in calls of {BATCH}, each",
        "of all rounds",
        "prompts/s",
        "parameters",
        "file",
    ]
    return markdown(header, rows)


def _mark(on_frontier: bool) -> str:
    return " *" if on_frontier else ""


def draw(cost: Cost) -> Figure:
    """tau over microseconds, a panel for each kind of cost."""
    figure, axes = plots.panels(len(_COSTS), 4.0)
    for panel, (kind, of) in zip(axes, _COSTS.items(), strict=True):
        points = [(of(each), each.tau.value) for each in cost.sizes]
        chosen = sorted(points[i] for i in frontier(points))
        panel.plot(*zip(*chosen, strict=True), color=BASELINE_COLOUR, linestyle="--", linewidth=1.2, zorder=1)
        for each, point in zip(cost.sizes, points, strict=True):
            _dot(panel, each, point, is_default=each.name == cost.default)
        panel.set_xscale("log")
        panel.margins(x=0.2)
        # A decade or less would have one label or none.
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_minor_formatter(NullFormatter())
        plots.plain_numbers(panel.xaxis)
        panel.set(xlabel=f"µs per prompt, {kind} (log)", ylabel="Kendall's tau, single sample")
    return figure


def _dot(panel: Any, size: Size, point: tuple[float, float], *, is_default: bool) -> None:
    error = [[size.tau.value - size.tau.low], [size.tau.high - size.tau.value]]
    colour = COLOURS[1] if is_default else COLOURS[0]
    panel.errorbar(
        *point,
        yerr=error,
        color=colour,
        marker="*" if is_default else "o",
        markersize=11 if is_default else 5,
        elinewidth=0.8,
    )
    label = f"{size.name} (default)" if is_default else size.name
    panel.annotate(label, point, xytext=(6, 5), textcoords="offset points", fontsize=8, color=colour)
