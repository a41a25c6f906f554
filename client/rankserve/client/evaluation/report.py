"""Writes a report of runs; the name's suffix says in which format, one module each."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rankserve.client.evaluation import as_html, as_json, as_markdown, as_text
from rankserve.client.evaluation.columns import AnyRun
from rankserve.client.evaluation.content import Report, build_report

__all__ = ["FORMATS", "Report", "build_report", "write_report"]

FORMATS: dict[str, Callable[[Report], str]] = {
    ".html": as_html.render,
    ".md": as_markdown.render,
    ".json": as_json.render,
    ".txt": as_text.render,
}


def write_report(path: Path, runs: Sequence[AnyRun]) -> Report:
    """Compares the runs with the first FCFS run among them and writes the report.

    Args:
        path: ends in .html, .md, .json or .txt. Its folder is made if missing.
        runs: at least one.

    Raises:
        ValueError: no runs, or another suffix.
        OSError: the file cannot be written.
    """
    render = FORMATS.get(path.suffix)
    if render is None:
        raise ValueError(f"a report's name must end in {', '.join(FORMATS)}, got {path.name!r}")
    report = build_report(runs)
    text = render(report)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return report
