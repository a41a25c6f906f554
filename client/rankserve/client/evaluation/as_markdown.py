"""A report as Markdown, for pull requests and READMEs."""

from collections.abc import Iterable, Sequence

from rankserve.client.evaluation.content import Report
from rankserve.client.evaluation.tables import Row, latency_rows, outcome_rows, provenance_rows


def render(report: Report) -> str:
    """The report as Markdown text."""
    labels = [column.label for column in report.columns]
    spread = [f"{label} {figure}" for label in labels for figure in ("mean", "p99")]
    parts = [
        "# " + ", ".join(labels),
        *(f"> **Note** {warning}" for warning in report.warnings),
        "## Latency\n\nIn the LLM's own seconds (wall clock × time scale), over finished requests.",
        _table(spread, latency_rows(report)),
        "## Outcome",
        _table(labels, outcome_rows(report)),
        "## How it was made",
        _table(labels, _widened(provenance_rows(report), len(labels))),
    ]
    return "\n\n".join(parts) + "\n"


def _widened(rows: Iterable[Row], width: int) -> list[Row]:
    return [Row(row.name, row.cells * width if len(row.cells) == 1 else row.cells) for row in rows]


def _table(labels: Sequence[str], rows: Iterable[Row]) -> str:
    lines = [_line(["", *labels]), _line(["---", *("---:" for _ in labels)])]
    lines += [_line([row.name, *row.cells]) for row in rows]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
