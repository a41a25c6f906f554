"""A report as plain text, for terminals."""

from collections.abc import Iterable, Sequence

from rankserve.client.evaluation.content import Report
from rankserve.client.evaluation.metrics import RunMetrics
from rankserve.client.evaluation.summary import Summary
from rankserve.client.evaluation.tables import NONE, latency_rows, number, outcome_rows, tau


def render(report: Report) -> str:
    """All runs side by side; latency as mean / p99."""
    labels = [column.label for column in report.columns]
    rows = [
        [f"{row.name} (mean / p99)", *map(" / ".join, zip(row.cells[0::2], row.cells[1::2], strict=True))]
        for row in latency_rows(report)
    ]
    rows += [[row.name, *row.cells] for row in outcome_rows(report)]
    return "\n".join([*aligned([["", *labels], *rows]), *_notes(report)]) + "\n"


def render_run(metrics: RunMetrics) -> str:
    """The figures of one run, with all percentiles."""

    def spread(name: str, summary: Summary | None) -> list[str]:
        if summary is None:
            return [name, *[NONE] * 5]
        values = (summary.mean, summary.p50, summary.p90, summary.p99, summary.max)
        return [name, *map(number, values)]

    latency = aligned(
        [
            [metrics.policy, "mean", "p50", "p90", "p99", "max"],
            spread("E2E latency, s", metrics.e2e_s),
            spread("Normalised, s/token", metrics.normalised_s_per_token),
            spread("TTFT, s", metrics.ttft_s),
            spread("TPOT, s", metrics.tpot_s),
            spread("Max waiting, s", metrics.max_waiting_s),
            spread("Scoring, s", metrics.scoring_s),
        ]
    )
    outcomes = "".join(f", {count} {outcome}" for outcome, count in sorted(metrics.failures.items()))
    return "\n".join(
        [
            *latency,
            "",
            f"{metrics.finished} of {metrics.requests} requests finished{outcomes}",
            f"{number(metrics.requests_per_s)} requests/s, "
            f"{number(metrics.output_tokens_per_s)} output tokens/s",
            f"queue depth {number(metrics.queue_depth_mean)} mean, {number(metrics.queue_depth_max)} max",
            f"Kendall's tau {tau(metrics.kendall_tau)}, ceiling {tau(metrics.kendall_tau_ceiling)}, "
            f"prompt length {tau(metrics.kendall_tau_prompt_length)}",
            "",
        ]
    )


def _notes(report: Report) -> list[str]:
    return ["", *(f"! {warning}" for warning in report.warnings)] if report.warnings else []


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines, the cells of a column below each other: the first column to the left, others to the right."""
    rows = list(rows)
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
