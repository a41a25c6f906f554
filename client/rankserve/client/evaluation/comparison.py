"""What a policy gained over FCFS, on the requests that finished under both.

Each ratio is FCFS over the other: 2 means that the other took half the time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rankserve.client.evaluation.columns import AnyRun, Numbers, as_columns
from rankserve.client.evaluation.latency import latencies


@dataclass(slots=True, frozen=True)
class Comparison:
    """A run against the FCFS baseline; ratios are None when no request finished under both.

    Attributes:
        common: requests that finished under both.
        improvement_ratio: of mean E2E latency.
        improvement_ratio_normalised: of mean latency per output token, the paper's metric.
        improvement_ratio_p99: of the 99th percentile of E2E latency; below 1, the tail pays for the mean.
    """

    common: int
    improvement_ratio: float | None
    improvement_ratio_normalised: float | None
    improvement_ratio_p99: float | None


def compare(fcfs: AnyRun, other: AnyRun) -> Comparison:
    """All ratios of two runs of one workload."""
    before, after = as_columns(fcfs).finished(), as_columns(other).finished()
    if not np.array_equal(before.results.id, after.results.id):
        _, these, those = np.intersect1d(before.results.id, after.results.id, return_indices=True)
        before, after = before.take(these), after.take(those)
    old, new = latencies(before), latencies(after)
    e2e_s = old.e2e_s, new.e2e_s
    normalised = old.normalised_s_per_token, new.normalised_s_per_token
    return Comparison(
        common=len(before.results),
        improvement_ratio=_ratio(*e2e_s, np.mean),
        improvement_ratio_normalised=_ratio(*normalised, np.mean),
        improvement_ratio_p99=_ratio(*e2e_s, lambda values: np.percentile(values, 99)),
    )


def improvement_ratio(fcfs: AnyRun, other: AnyRun) -> float | None:
    """Mean E2E latency under FCFS / under the other."""
    return compare(fcfs, other).improvement_ratio


def improvement_ratio_normalised(fcfs: AnyRun, other: AnyRun) -> float | None:
    """Mean latency per output token under FCFS / under the other."""
    return compare(fcfs, other).improvement_ratio_normalised


def improvement_ratio_p99(fcfs: AnyRun, other: AnyRun) -> float | None:
    """99th percentile of E2E latency under FCFS / under the other."""
    return compare(fcfs, other).improvement_ratio_p99


def _ratio(before: Numbers, after: Numbers, reduce: Callable[[Numbers], np.floating]) -> float | None:
    if len(before) == 0:
        return None
    divisor = float(reduce(after))
    return float(reduce(before)) / divisor if divisor else None
