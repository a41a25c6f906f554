"""Arrival processes."""

import json

import pytest

from rankserve.client.load import Arrivals, Burst, Poisson, Recorded
from rankserve.records.workload import WorkloadRecord

WORKLOAD = [WorkloadRecord(f"r{index}", "Hello", arrival_s=index * 2.0) for index in range(2000)]


def test_poisson_times_follow_the_seed_alone() -> None:
    times = Poisson(rate=20, seed=3).times(WORKLOAD)
    assert times == Poisson(rate=20, seed=3).times(WORKLOAD)
    assert times != Poisson(rate=20, seed=4).times(WORKLOAD)
    assert times[:100] == Poisson(rate=20, seed=3).times(WORKLOAD[:100])


def test_poisson_has_its_rate_and_the_spread_of_independent_arrivals() -> None:
    times = Poisson(rate=20, seed=3).times(WORKLOAD)
    gaps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert min(gaps) >= 0
    assert mean == pytest.approx(1 / 20, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.1)


def test_a_burst_comes_at_once() -> None:
    assert Burst().times(WORKLOAD[:3]) == [0.0, 0.0, 0.0]


def test_recorded_times_are_the_workload_s() -> None:
    assert Recorded().times(WORKLOAD[:3]) == [0.0, 2.0, 4.0]
    assert Recorded(speed=10).times(WORKLOAD[:3]) == [0.0, 0.2, 0.4]
    with pytest.raises(ValueError, match="'bare' has no arrival_s"):
        Recorded().times([*WORKLOAD, WorkloadRecord("bare", "Hello")])


@pytest.mark.parametrize(
    ("arrivals", "expected"),
    [
        (Poisson(2.5, seed=9), {"process": "poisson", "rate": 2.5, "seed": 9}),
        (Burst(), {"process": "burst"}),
        (Recorded(4.0), {"process": "recorded", "speed": 4.0}),
    ],
)
def test_each_describes_itself_as_json(arrivals: Arrivals, expected: dict[str, object]) -> None:
    assert json.loads(json.dumps(arrivals.describe())) == expected


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Poisson(rate)
    with pytest.raises(ValueError, match="above 0"):
        Recorded(speed=rate)
