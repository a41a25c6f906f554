"""A report as one JSON object."""

import json
from dataclasses import asdict
from typing import Any

from rankserve.client.evaluation.content import Column, Report


def render(report: Report) -> str:
    """The report as JSON text; see ``to_json``."""
    return json.dumps(to_json(report), indent=2) + "\n"


def to_json(report: Report) -> dict[str, Any]:
    """``baseline``, ``warnings``, and ``runs``: label, header, metrics and, but for the baseline, ratios."""
    return {
        "baseline": report.baseline,
        "warnings": list(report.warnings),
        "runs": [_run(column) for column in report.columns],
    }


def _run(column: Column) -> dict[str, Any]:
    header = asdict(column.header)
    # Plot data: hundreds of samples that would bury the figures. Mean and maximum stand in the metrics.
    header.pop("queue_depth")
    ratios = asdict(column.comparison) if column.comparison is not None else {}
    return {"label": column.label, "header": header, **column.metrics.to_json(), **ratios}
