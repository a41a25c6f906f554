"""The figures of simulated runs, by policy, over seeds: as a table and as JSON."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from rankserve.client.evaluation import Comparison, RunMetrics
from rankserve.client.evaluation.as_text import aligned
from rankserve.client.evaluation.tables import NONE, number, share, tau
from rankserve.records.results import RunHeader

_LATENCIES = (
    ("E2E latency, s", "e2e_s"),
    ("TTFT, s", "ttft_s"),
    ("TPOT, s", "tpot_s"),
    ("Normalised, s/token", "normalised_s_per_token"),
    ("Max waiting, s", "max_waiting_s"),
)
_STATISTICS = ("mean", "p50", "p90", "p99", "max")


def _times(ratio: float | None) -> str:
    return NONE if ratio is None else f"{ratio:.2f}×"


_OUTCOMES: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("Improvement ratio, mean E2E", "improvement_ratio", _times),
    ("Improvement ratio, s/token", "improvement_ratio_normalised", _times),
    ("Improvement ratio, p99 E2E", "improvement_ratio_p99", _times),
    ("Kendall's tau of the scores", "kendall_tau", tau),
    ("Tau's ceiling", "kendall_tau_ceiling", tau),
    ("Preemptions", "preemptions", number),
    ("Promoted", "promoted", number),
    ("KV use, mean", "kv_use_mean", share),
    ("KV use, max", "kv_use_max", share),
    ("Queue depth, mean", "queue_depth_mean", number),
    ("Queue depth, max", "queue_depth_max", number),
    ("Requests/s of the LLM's time", "requests_per_s", number),
    ("Steps", "steps", number),
    ("Refused", "failed", number),
    ("Simulated requests/s", "simulated_requests_per_s", number),
)


@dataclass(slots=True, frozen=True)
class RunFigures:
    """One run's figures. `comparison` is None for FCFS itself and without it; `file` if none was written."""

    header: RunHeader
    metrics: RunMetrics
    comparison: Comparison | None
    wall_s: float
    file: Path | None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        header = asdict(self.header)
        # Plot data, which would bury the figures.
        header.pop("queue_depth")
        return {
            "policy": self.header.policy,
            "seed": self.header.seed,
            "file": None if self.file is None else str(self.file),
            "wall_s": self.wall_s,
            "simulated_requests_per_s": self.metrics.requests / self.wall_s,
            "failed": self.metrics.failed,
            **self.metrics.to_json(),
            **({} if self.comparison is None else asdict(self.comparison)),
            "header": header,
        }


@dataclass(slots=True, frozen=True)
class Estimate:
    """A figure over seeds.

    Attributes:
        mean: over the seeds.
        half_width: of the 95 % confidence interval of the mean (Student's t); None with a single seed.
    """

    mean: float
    half_width: float | None


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """None if a seed has no such figure."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return None
    mean = float(np.mean(known))
    if len(known) == 1:
        return Estimate(mean, None)
    deviation = float(np.std(known, ddof=1))
    return Estimate(mean, float(student_t.ppf(0.975, len(known) - 1)) * deviation / math.sqrt(len(known)))


def by_policy(runs: Sequence[RunFigures]) -> dict[str, dict[str, Estimate | None]]:
    """Policy -> figure -> its estimate; latencies are named "e2e_s.mean", "e2e_s.p50" and so on."""
    policies: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        policies.setdefault(run.header.policy, []).append(run.to_json())
    names = [name for _, name, _ in _OUTCOMES]
    names += [f"{latency}.{statistic}" for _, latency in _LATENCIES for statistic in _STATISTICS]
    return {
        policy: {name: estimate([_figure(document, name) for document in documents]) for name in names}
        for policy, documents in policies.items()
    }


def to_json(runs: Sequence[RunFigures]) -> dict[str, Any]:
    """``runs``, each run's figures, and ``policies``, the estimates over the seeds."""
    policies = {
        policy: {name: None if value is None else asdict(value) for name, value in figures.items()}
        for policy, figures in by_policy(runs).items()
    }
    return {"runs": [run.to_json() for run in runs], "policies": policies}


def render(runs: Sequence[RunFigures]) -> str:
    """A table with a column for each policy; over several seeds, means and 95 % intervals."""
    policies = by_policy(runs)
    rows = [["", *policies]]
    for title, latency in _LATENCIES:
        for statistic in _STATISTICS:
            name = f"{latency}.{statistic}"
            cells = [_cell(figures[name], number) for figures in policies.values()]
            rows.append([f"{title}, {statistic}", *cells])
    for title, name, shown in _OUTCOMES:
        cells = [_cell(figures[name], shown) for figures in policies.values()]
        # What no run has says nothing, and what none refused is not worth a row.
        if set(cells) != {NONE} and not (name == "failed" and set(cells) == {"0"}):
            rows.append([title, *cells])
    return "\n".join(aligned(rows)) + "\n"


def _figure(document: Mapping[str, Any], name: str) -> float | None:
    value: Any = document
    for part in name.split("."):
        value = None if value is None else value.get(part)
    return None if value is None else float(value)


def _cell(value: Estimate | None, shown: Callable[[float | None], str]) -> str:
    if value is None:
        return NONE
    text = shown(value.mean)
    return text if not value.half_width else f"{text} ±{shown(value.half_width)}"
