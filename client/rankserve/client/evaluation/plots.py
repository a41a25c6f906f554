"""The plots of a report, as inline SVG without an outside reference."""

import io
import math
import re
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from rankserve.client.evaluation.columns import Numbers, Texts
from rankserve.client.evaluation.content import BASELINE_POLICY, Column, Report
from rankserve.client.evaluation.latency import latencies

# Okabe and Ito's palette, told apart by colour-blind readers too; the baseline is grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASELINE_COLOUR = "#6B7280"
INK, GRID = "#374151", "#E5E7EB"
WIDTH_INCHES = 9.0
PANELS_PER_ROW = 3
# More dots than this only hide each other and make the page heavy.
MAX_DOTS = 500
MAX_CURVE_POINTS = 2000
RANK_BINS = 20
# Any: matplotlib's own type for this lists every parameter, and another list in each version.
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    # Policies are named by users: a dollar sign is a dollar sign.
    "text.parse_math": False,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9CA3AF",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


def colours(report: Report) -> list[str]:
    """One colour a run."""
    others = iter(COLOURS * len(report.columns))
    return [
        BASELINE_COLOUR if column.header.policy == BASELINE_POLICY else next(others)
        for column in report.columns
    ]


def latency_cdf(report: Report) -> str | None:
    """Share of requests answered within a time, by run. None if nothing finished."""
    series = [(column, _e2e(column)) for column in report.columns]
    if not any(len(values) for _, values in series):
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for (column, values), colour in zip(series, colours(report), strict=True):
            share = np.arange(1, len(values) + 1) / max(len(values), 1)
            shown = np.unique(np.linspace(0, len(values) - 1, MAX_CURVE_POINTS).astype(int))[: len(values)]
            curve = np.sort(values)[shown], share[shown]
            axes.plot(*curve, color=colour, label=column.label, drawstyle="steps-post")
        _log_seconds(axes.xaxis, np.concatenate([values for _, values in series]))
        axes.set(xlabel="E2E latency, s (log)", ylabel="Share of requests", ylim=(0, 1.02))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
        _legend(figure, axes)
        return _svg(figure, "cdf")


def latency_by_rank(report: Report) -> str | None:
    """Latency against the ranker's order, a panel a run, all with the same axes. None without scores."""
    order = _predicted_rank(report)
    shown = [column for column in report.columns if len(_e2e(column))]
    if order is None or not shown:
        return None
    rows = math.ceil(len(shown) / PANELS_PER_ROW)
    columns = min(len(shown), PANELS_PER_ROW)
    by_column = dict(zip((id(column) for column in report.columns), colours(report), strict=True))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 0.5 + 2.9 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, column in zip(grid.flat, shown, strict=False):
            _rank_panel(axes, column, order, by_column[id(column)])
        for axes in list(grid.flat)[len(shown) :]:
            axes.set_visible(False)
        _log_seconds(grid.flat[0].yaxis, np.concatenate([_e2e(column) for column in shown]))
        figure.supxlabel("Predicted rank: 0 % = shortest answer expected", fontsize=10)
        figure.supylabel("E2E latency, s (log)", fontsize=10)
        return _svg(figure, "rank")


def queue_depth(report: Report) -> str | None:
    """Requests waiting over the run. None without samples."""
    if not any(column.header.queue_depth for column in report.columns):
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 3.0), layout="constrained")
        axes = figure.add_subplot()
        for column, colour in zip(report.columns, colours(report), strict=True):
            seconds = [second * column.header.time_scale for second, _ in column.header.queue_depth]
            depths = [depth for _, depth in column.header.queue_depth]
            axes.plot(seconds, depths, color=colour, label=column.label)
        axes.set(xlabel="Time since the start of the run, s", ylabel="Requests waiting")
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        _legend(figure, axes)
        return _svg(figure, "queue")


def _rank_panel(axes: Any, column: Column, order: tuple[Texts, Numbers], colour: str) -> None:
    finished = column.run.finished()
    _, these, those = np.intersect1d(finished.results.id, order[0], return_indices=True)
    ranks, seconds = order[1][those], latencies(finished).e2e_s[these]
    dots = np.random.default_rng(0).permutation(len(ranks))[:MAX_DOTS]
    axes.plot(ranks[dots], seconds[dots], ".", color=colour, alpha=0.25, markersize=4, markeredgewidth=0)
    bins = np.minimum((ranks * RANK_BINS).astype(int), RANK_BINS - 1)
    used = np.unique(bins)
    means = [seconds[bins == place].mean() for place in used]
    axes.plot((used + 0.5) / RANK_BINS, means, color=colour)
    axes.set_title(column.label)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "", "50 %", "", "100 %"])


def _predicted_rank(report: Report) -> tuple[Texts, Numbers] | None:
    """Request ids and their places in the order of the scores, 0 to 1, from the first run that has scores.

    One order for all panels: a rank belongs to a request, not to the policy that served it.
    """
    for column in report.columns:
        results = column.run.finished().results
        scored = results.take(~np.isnan(results.score))
        if len(scored) and np.ptp(scored.score) > 0:
            order = np.argsort(-scored.score, kind="stable")
            return scored.id[order], np.arange(len(order)) / (len(order) - 1)
    return None


def _e2e(column: Column) -> Numbers:
    return latencies(column.run.finished()).e2e_s


def _log_seconds(axis: Any, values: Numbers) -> None:
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_formatter(FuncFormatter(lambda second, _: f"{second:g}"))
    # Less than a decade leaves a log axis with no or one major tick.
    crowded = math.log10(values.max() / max(values.min(), 1e-9)) > 1.2
    axis.set_minor_formatter(FuncFormatter(lambda second, _: "" if crowded else _leading(second)))


def _leading(second: float) -> str:
    """A label for 2 and 5 in each decade only."""
    digit = round(second / 10 ** math.floor(math.log10(second)))
    return f"{second:g}" if digit in (2, 5) else ""


def _legend(figure: Figure, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=6, handlelength=1.4, columnspacing=1.6)


def _svg(figure: Figure, prefix: str) -> str:
    FigureCanvasAgg(figure)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Inside HTML the namespaces are known; without them no URL is left in the page.
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Ids are unique within a figure; several share the page.
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    # The page sets the width.
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"',
        r"\1",
        re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1),
        count=1,
    )
