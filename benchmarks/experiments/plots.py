"""The look of the plots."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from rankserve.client.evaluation.plots import BASELINE_COLOUR, COLOURS, STYLE

WIDTH_INCHES = 9.5
DPI = 90
MARKERS = "osD^vP*X"
POLICIES: dict[str, dict[str, Any]] = {
    "FCFS": {"color": BASELINE_COLOUR, "marker": "o"},
    "MLFQ, recompute": {"color": COLOURS[4], "marker": "s"},
    "MLFQ, swap": {"color": COLOURS[4], "marker": "D", "linestyle": ":"},
    "classification": {"color": COLOURS[3], "marker": "^"},
    "ranking": {"color": COLOURS[0], "marker": "v"},
    "bounded ranking": {"color": "#DC2626", "marker": "*", "markersize": 7},
    "aged ranking": {"color": COLOURS[5], "marker": "P"},
    "cost-aware": {"color": COLOURS[2], "marker": "d"},
    "oracle (SJF)": {"color": "black", "marker": "x", "linestyle": "--"},
}


def panels(count: int, height_inches: float = 3.6, *, rows: int = 1) -> tuple[Figure, list[Any]]:
    """A figure with this many plots side by side, in this many rows."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        axes = figure.subplots(rows, count, squeeze=False)
    return figure, list(axes.flat)


def look(index: int, label: str) -> dict[str, Any]:
    """Colour and marker of a line: of its policy where it has one of its own, else the index-th."""
    if label in POLICIES:
        return {"markersize": 4, **POLICIES[label]}
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)], "markersize": 4}


def plain_numbers(axis: Any) -> None:
    """0.1, 1, 10 on a log axis, not powers."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def legend_above(figure: Figure, axes: Any, columns: int = 5) -> None:
    handles, labels = axes.get_legend_handles_labels()
    with mpl.rc_context(STYLE):
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=1.6)


def save(figure: Figure, path: Path) -> None:
    with mpl.rc_context(STYLE):
        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
