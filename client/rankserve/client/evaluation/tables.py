"""The tables of a report, as rows of text; HTML, Markdown and the command line show them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rankserve.client.evaluation.content import Column, Report, describe_arrivals
from rankserve.client.evaluation.summary import Summary

NONE = "–"


@dataclass(slots=True, frozen=True)
class Row:
    """A named row. ``note`` explains the name; ``best`` marks the columns with the best value."""

    name: str
    cells: tuple[str, ...]
    note: str = ""
    best: frozenset[int] = frozenset()


def number(value: float | None) -> str:
    """Three significant digits, without an exponent, or a dash for None."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    magnitude = abs(value)
    for limit, decimals in ((100, 0), (10, 1), (1, 2), (0.1, 3), (0.01, 4)):
        if magnitude >= limit:
            return f"{value:,.{decimals}f}"
    return f"{value:.2g}"


def tau(value: float | None) -> str:
    """Three decimals, or a dash for None."""
    return NONE if value is None else f"{value:.3f}"


def share(value: float | None) -> str:
    """In percent, or a dash for None."""
    return NONE if value is None else f"{value:.1%}"


def latency_rows(report: Report) -> list[Row]:
    """Mean and p99 side by side: two cells a run."""

    def row(name: str, note: str, summary: Callable[[Column], Summary | None]) -> Row:
        summaries = [summary(column) for column in report.columns]
        values = [value for s in summaries for value in ((s.mean, s.p99) if s else (None, None))]
        cells = tuple(map(number, values))
        return Row(name, cells, note, _lowest(values, cells, 0) | _lowest(values, cells, 1))

    return [
        row("E2E latency, s", "sent until the last token", lambda c: c.metrics.e2e_s),
        row("Normalised, s/token", "E2E per output token", lambda c: c.metrics.normalised_s_per_token),
        row("TTFT, s", "time to first token", lambda c: c.metrics.ttft_s),
        row("TPOT, s", "time per token after the first", lambda c: c.metrics.tpot_s),
        row("Max waiting, s", "longest silence: TTFT or a gap", lambda c: c.metrics.max_waiting_s),
        row("Scoring, s", "accepted until ranked, or started if sooner", lambda c: c.metrics.scoring_s),
    ]


def outcome_rows(report: Report) -> list[Row]:
    """One cell a run: what was gained, how well it was ranked, how much was served."""

    def row(name: str, cell: Callable[[Column], str], note: str = "") -> Row:
        return Row(name, tuple(map(cell, report.columns)), note)

    return [
        row("Improvement ratio", lambda c: _ratio(c, "improvement_ratio"), "mean E2E, FCFS / this"),
        row(
            "Improvement, s/token",
            lambda c: _ratio(c, "improvement_ratio_normalised"),
            "mean normalised latency, FCFS / this",
        ),
        row("Improvement at p99", lambda c: _ratio(c, "improvement_ratio_p99"), "p99 E2E, FCFS / this"),
        row("Kendall's tau", lambda c: tau(c.metrics.kendall_tau), "of scores with output lengths"),
        row(
            "Tau's ceiling",
            lambda c: tau(c.metrics.kendall_tau_ceiling),
            "other samples of the same prompts",
        ),
        row(
            "Tau of prompt length",
            lambda c: tau(c.metrics.kendall_tau_prompt_length),
            "without any ranker",
        ),
        row("Requests/s", lambda c: number(c.metrics.requests_per_s)),
        row("Output tokens/s", lambda c: number(c.metrics.output_tokens_per_s)),
        row("Queue depth, mean", lambda c: number(c.metrics.queue_depth_mean), "requests waiting"),
        row("Queue depth, max", lambda c: number(c.metrics.queue_depth_max)),
        *(row(*usage) for usage in _USAGE_ROWS if any(usage[1](c) != NONE for c in report.columns)),
        row("Preemptions", lambda c: number(c.metrics.preemptions), "evicted and resumed"),
        row("Promoted", lambda c: number(c.metrics.promoted), "moved by starvation prevention"),
        row("Finished", lambda c: f"{c.metrics.finished:,}"),
        row("Failed", lambda c: f"{c.metrics.failed:,}", "in no latency"),
    ]


def provenance_rows(report: Report) -> list[Row]:
    """One cell a run: how it was made. Rows that are the same for all runs have a single cell."""

    def row(name: str, cell: Callable[[Column], str]) -> Row:
        cells = tuple(map(cell, report.columns))
        return Row(name, cells[:1] if len(set(cells)) == 1 else cells)

    return [
        row("Engine", lambda c: c.header.engine),
        row("Ranker version", lambda c: c.header.ranker_version or NONE),
        row("Workload", lambda c: c.header.workload or NONE),
        row("Arrivals", lambda c: describe_arrivals(c.header)),
        row("Seed", lambda c: str(c.header.seed)),
        row(
            "Batch cap", lambda c: f"{c.header.max_sequences} sequences, {c.header.max_batched_tokens} tokens"
        ),
        row("KV blocks", lambda c: f"{c.header.kv_blocks:,}"),
        row("Replicas", lambda c: str(c.header.replicas)),
        row("Scheduler", lambda c: ", ".join(f"{k} {v}" for k, v in c.header.settings.items()) or NONE),
        row("Time scale", lambda c: f"{c.header.time_scale:g}"),
        row("Engine lag", lambda c: f"{c.header.engine_lag:.2%}"),
        row("Sender lateness, p99", _lateness),
        row("Started", lambda c: c.header.started_at or NONE),
        row("Versions", lambda c: ", ".join(f"{k} {v}" for k, v in c.header.versions.items()) or NONE),
        row("Machine", lambda c: c.header.machine or NONE),
    ]


_USAGE_ROWS: tuple[tuple[str, Callable[[Column], str], str], ...] = (
    ("KV use, mean", lambda c: share(c.metrics.kv_use_mean), "of an engine's KV blocks, while it is busy"),
    ("KV use, max", lambda c: share(c.metrics.kv_use_max), ""),
    ("Steps", lambda c: number(c.metrics.steps), "of the LLM, all replicas together"),
)


def _lateness(column: Column) -> str:
    lateness_s = column.header.arrivals.get("sender_lateness_p99_s")
    return NONE if lateness_s is None else f"{lateness_s * 1000:.1f} ms of wall clock"


def _ratio(column: Column, name: str) -> str:
    ratio = None if column.comparison is None else getattr(column.comparison, name)
    return NONE if ratio is None else f"{ratio:.2f}×"


def _lowest(values: Sequence[float | None], cells: Sequence[str], first: int) -> frozenset[int]:
    """Positions first, first + 2, ... that show the lowest value; none where all show the same."""
    places = [place for place in range(first, len(cells), 2) if values[place] is not None]
    if len({cells[place] for place in places}) < 2:
        return frozenset()
    lowest = cells[min(places, key=lambda place: values[place] or 0.0)]
    return frozenset(place for place in places if cells[place] == lowest)
