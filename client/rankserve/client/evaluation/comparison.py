"""What a policy gained over FCFS, on the requests that finished under both.

Each ratio is FCFS over the other: 2 means that the other took half the time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rankserve.client.evaluation.latency import Latency, latencies
from rankserve.records.results import Run


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


def compare(fcfs: Run, other: Run) -> Comparison:
    """All ratios of two runs of one workload."""
    return Comparison(
        common=len(latencies(fcfs).keys() & latencies(other).keys()),
        improvement_ratio=improvement_ratio(fcfs, other),
        improvement_ratio_normalised=improvement_ratio_normalised(fcfs, other),
        improvement_ratio_p99=improvement_ratio_p99(fcfs, other),
    )


def improvement_ratio(fcfs: Run, other: Run) -> float | None:
    """Mean E2E latency under FCFS / under the other."""
    return _ratio(fcfs, other, lambda latency: latency.e2e_s, np.mean)


def improvement_ratio_normalised(fcfs: Run, other: Run) -> float | None:
    """Mean latency per output token under FCFS / under the other."""
    return _ratio(fcfs, other, lambda latency: latency.normalised_s_per_token, np.mean)


def improvement_ratio_p99(fcfs: Run, other: Run) -> float | None:
    """99th percentile of E2E latency under FCFS / under the other."""
    return _ratio(fcfs, other, lambda latency: latency.e2e_s, lambda values: np.percentile(values, 99))


def _ratio(
    fcfs: Run, other: Run, value: Callable[[Latency], float], reduce: Callable[[list[float]], np.floating]
) -> float | None:
    before, after = latencies(fcfs), latencies(other)
    common = sorted(before.keys() & after.keys())
    if not common:
        return None
    divisor = float(reduce([value(after[request_id]) for request_id in common]))
    return float(reduce([value(before[request_id]) for request_id in common])) / divisor if divisor else None
