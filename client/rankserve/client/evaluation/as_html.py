"""A report as one self-contained HTML page."""

from importlib.resources import files

import jinja2

from rankserve.client.evaluation.content import Column, Report, describe_arrivals
from rankserve.client.evaluation.tables import latency_rows, outcome_rows, provenance_rows, tau

ORACLE_POLICIES = ("sjf", "srtf")


def render(report: Report) -> str:
    """The page, with nothing to load from anywhere."""
    # Matplotlib takes a good part of a second to import, and only this format draws.
    from rankserve.client.evaluation import plots

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files(__package__).joinpath("templates", "report.html.j2").read_text(encoding="utf-8")
    first = report.columns[0]
    return environment.from_string(source).render(
        title=_title(report),
        subtitle=_subtitle(first),
        report=report,
        colours=plots.colours(report),
        gains=[_gain(column) for column in report.columns if column.comparison is not None],
        latency=latency_rows(report),
        outcome=outcome_rows(report),
        provenance=provenance_rows(report),
        figures=[
            (heading, text, svg)
            for heading, text, svg in (
                (
                    "Latency by policy",
                    "The share of requests answered within a time. Further left is better; the right end is "
                    "the tail.",
                    plots.latency_cdf(report),
                ),
                (
                    "Latency against predicted rank",
                    "Each dot is a request, the line their mean. An order by predicted length rises from "
                    "left to right: brief answers no longer wait for long ones. Order of arrival is flat.",
                    plots.latency_by_rank(report),
                ),
                (
                    "Queue depth over time",
                    "Requests waiting at the server. Where there is no queue, no order can help.",
                    plots.queue_depth(report),
                ),
            )
            if svg is not None
        ],
    )


def _subtitle(column: Column) -> str:
    parts = [f"{column.metrics.requests:,} requests", describe_arrivals(column.header)]
    if column.header.workload:
        parts.insert(1, column.header.workload)
    return " · ".join([*parts, column.header.engine])


def _gain(column: Column) -> dict[str, str]:
    comparison = column.comparison
    assert comparison is not None, "only asked for beside the baseline"

    def times(ratio: float | None) -> tuple[str, str]:
        if not ratio:
            return "–", "no common requests"
        return (f"{ratio:.2f}×", "lower") if ratio >= 1 else (f"{1 / ratio:.2f}×", "higher")

    mean, mean_direction = times(comparison.improvement_ratio)
    return {
        "label": column.label,
        "mean": mean,
        "mean_direction": mean_direction,
        "p99": " ".join(times(comparison.improvement_ratio_p99)),
        "ranking": _ranking(column),
    }


def _ranking(column: Column) -> str:
    """How good the order was that this run was served in."""
    metrics = column.metrics
    if column.header.policy in ORACLE_POLICIES:
        return "oracle: it reads the recorded lengths"
    if metrics.kendall_tau is None:
        return ""
    ceiling = metrics.kendall_tau_ceiling
    known_ceiling = "" if ceiling is None else f", ceiling {tau(ceiling)}"
    return f"Kendall's tau {tau(metrics.kendall_tau)}{known_ceiling}"


def _title(report: Report) -> str:
    others = [column.label for column in report.columns if column.label != report.baseline]
    if report.baseline is None or not others:
        return ", ".join(column.label for column in report.columns)
    return f"{' and '.join(filter(None, (', '.join(others[:-1]), others[-1])))} against {report.baseline}"
