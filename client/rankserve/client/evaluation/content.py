"""What a report says, whatever the format."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rankserve.client.evaluation.columns import AnyRun, ColumnarRun, Texts, as_columns
from rankserve.client.evaluation.comparison import Comparison, compare
from rankserve.client.evaluation.metrics import RunMetrics, evaluate
from rankserve.records.results import RunHeader

BASELINE_POLICY = "fcfs"
# Above these a run's figures are doubtful.
MAX_ENGINE_LAG = 0.05
MAX_LATENESS_SHARE = 0.05
MAX_SCORING_SHARE = 0.1
# Differences in these make two runs no longer like for like.
CONTROLLED = (
    "workload",
    "seed",
    "engine",
    "time_scale",
    "max_sequences",
    "max_batched_tokens",
    "kv_blocks",
    "replicas",
    "machine",
    "versions",
)


@dataclass(slots=True, frozen=True)
class Column:
    """One run in a report. ``comparison`` is None for the baseline, and where there is none."""

    label: str
    run: ColumnarRun
    metrics: RunMetrics
    comparison: Comparison | None

    @property
    def header(self) -> RunHeader:
        """How the run was made."""
        return self.run.header


@dataclass(slots=True, frozen=True)
class Report:
    """Runs side by side.

    Attributes:
        columns: the runs, in the order given.
        baseline: label of the first FCFS run, or None.
        warnings: what a reader must know before believing the figures.
    """

    columns: tuple[Column, ...]
    baseline: str | None
    warnings: tuple[str, ...]


def build_report(reported: Sequence[AnyRun]) -> Report:
    """Compares the runs with the first FCFS run among them. Raises ValueError for no runs."""
    runs = [as_columns(run) for run in reported]
    if not runs:
        raise ValueError("a report needs at least one run")
    baseline = next((place for place, run in enumerate(runs) if run.header.policy == BASELINE_POLICY), None)
    columns = tuple(
        Column(
            label=label,
            run=run,
            metrics=evaluate(run),
            comparison=None if baseline in (None, place) else compare(runs[baseline], run),
        )
        for place, (label, run) in enumerate(zip(_labels(runs), runs, strict=True))
    )
    warnings = [warning for column in columns for warning in _doubts(column)]
    if baseline is None:
        warnings.append("No run is FCFS, so there is nothing to improve on: no ratios.")
    return Report(
        columns=columns,
        baseline=None if baseline is None else columns[baseline].label,
        warnings=(*warnings, *_differences(columns)),
    )


def _labels(runs: Sequence[ColumnarRun]) -> list[str]:
    """The policies, numbered where one comes twice."""
    total = Counter(run.header.policy for run in runs)
    seen: Counter[str] = Counter()
    labels = []
    for run in runs:
        policy = run.header.policy
        seen[policy] += 1
        labels.append(policy if total[policy] == 1 else f"{policy} #{seen[policy]}")
    return labels


def _doubts(column: Column) -> list[str]:
    metrics, header = column.metrics, column.header
    doubts = []
    if metrics.failed:
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(metrics.failures.items()))
        doubts.append(
            f"{column.label}: {metrics.failed} of {metrics.requests} requests did not finish ({outcomes}). "
            "They are in no latency."
        )
    if header.engine_lag > MAX_ENGINE_LAG:
        doubts.append(
            f"{column.label}: the simulated LLM fell behind its clock by {header.engine_lag:.0%} of its busy "
            "time. Lower the time scale or the load."
        )
    lateness_s = header.arrivals.get("sender_lateness_p99_s", 0.0) * header.time_scale
    if metrics.e2e_s is not None and lateness_s > MAX_LATENESS_SHARE * metrics.e2e_s.p50:
        doubts.append(
            f"{column.label}: requests were sent up to {lateness_s:.3g} s late (p99), for a median latency "
            f"of {metrics.e2e_s.p50:.3g} s."
        )
    if (
        metrics.e2e_s is not None
        and metrics.scoring_s is not None
        and metrics.scoring_s.mean > MAX_SCORING_SHARE * metrics.e2e_s.mean
    ):
        share = metrics.scoring_s.mean / metrics.e2e_s.mean
        doubts.append(
            f"{column.label}: scoring took {share:.0%} of the mean latency: the ranker is the bottleneck. "
            "Lower the time scale or the load."
        )
    return doubts


def _differences(columns: Sequence[Column]) -> list[str]:
    differences = []
    for name in (*CONTROLLED, "arrivals"):
        values = {column.label: _controlled_value(column.header, name) for column in columns}
        first = next(iter(values.values()))
        if any(value != first for value in values.values()):
            shown = ", ".join(f"{value} ({label})" for label, value in values.items())
            differences.append(f"Not like for like: {name.replace('_', ' ')} differs: {shown}.")
    first_ids, *others = (column.run.results.id for column in columns)
    if not all(_same_set(ids, first_ids) for ids in others):
        differences.append("Not like for like: the runs did not send the same requests.")
    return differences


def _same_set(some: Texts, others: Texts) -> bool:
    return np.array_equal(some, others) or np.array_equal(np.unique(some), np.unique(others))


def _controlled_value(header: RunHeader, name: str) -> Any:
    if name == "arrivals":
        return describe_arrivals(header)
    return getattr(header, name)


def describe_arrivals(header: RunHeader) -> str:
    """For example "poisson, rate 20/s"; without what was measured and the seed, which stands apart."""
    described = dict(header.arrivals)
    for name in ("sender_lateness_p99_s", "seed"):
        described.pop(name, None)
    process = described.pop("process", "unknown")
    if (rate := described.pop("rate", None)) is not None:
        described[f"rate {rate:g}/s"] = ""
        if header.time_scale != 1:
            described[f"{rate / header.time_scale:g}/s in the LLM's time"] = ""
    return ", ".join([str(process), *(f"{name} {value}".strip() for name, value in described.items())])
