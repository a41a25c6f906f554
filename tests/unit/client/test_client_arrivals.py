"""Arrival processes."""

import json

import pytest

from rankserve.client.load import Arrivals, Burst, DrawnArrivals, Gamma, OnOff, Poisson, Recorded
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


@pytest.mark.parametrize("cv", [0.2, 1.0, 3.0])
def test_gamma_gaps_have_their_rate_and_variation(cv: float) -> None:
    times = Gamma(rate=20, cv=cv, seed=3).draw(20_000)
    gaps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1 / 20, rel=0.05)
    assert deviation / mean == pytest.approx(cv, rel=0.1)


def test_on_off_alternates_between_its_rates() -> None:
    times = OnOff(high_rate=60, high_s=20, low_rate=15, low_s=40, seed=3).draw(9000)
    assert times == sorted(times)
    rounds = int(times[-1] // 60)
    high = sum(time % 60 < 20 for time in times if time < rounds * 60) / rounds
    low = sum(time % 60 >= 20 for time in times if time < rounds * 60) / rounds
    assert rounds >= 4
    assert high == pytest.approx(60 * 20, rel=0.05)
    assert low == pytest.approx(15 * 40, rel=0.08)


def test_on_off_may_fall_silent() -> None:
    times = OnOff(high_rate=10, high_s=1, low_rate=0, low_s=9, seed=1).draw(500)
    assert max(time % 10 for time in times) <= 1
    # About 10 in each of the rounds of 10 s.
    assert times[-1] == pytest.approx(500, rel=0.2)


@pytest.mark.parametrize(
    "arrivals", [Gamma(20, 3, seed=5), OnOff(60, 20, 15, 40, seed=5), Poisson(2, seed=5)]
)
def test_drawn_times_depend_on_the_seed_and_the_place_alone(arrivals: DrawnArrivals) -> None:
    assert arrivals.times(WORKLOAD) == arrivals.draw(2000)
    assert arrivals.draw(2000)[:100] == arrivals.draw(100)
    assert arrivals.draw(50) != type(arrivals)(**{**_fields(arrivals), "seed": 6}).draw(50)


def _fields(arrivals: DrawnArrivals) -> dict[str, float]:
    return {name: value for name, value in arrivals.describe().items() if name != "process"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((0, 1, 1, 1), "rate"),
        ((1, 0, 1, 1), "phase"),
        ((1, 1, -1, 1), "low rate"),
        ((1, 1, 1, float("inf")), "phase"),
    ],
)
def test_impossible_phases_are_refused(arguments: tuple[float, float, float, float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        OnOff(*arguments, seed=0)


def test_impossible_variation_is_refused() -> None:
    with pytest.raises(ValueError, match="coefficient of variation"):
        Gamma(1, 0)
    with pytest.raises(ValueError, match="coefficient of variation"):
        Gamma(1, float("nan"))


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
        (Gamma(2.5, 4.0, seed=9), {"process": "gamma", "rate": 2.5, "cv": 4.0, "seed": 9}),
        (
            OnOff(60, 20, 15, 40, seed=9),
            {
                "process": "on-off",
                "high_rate": 60,
                "high_s": 20,
                "low_rate": 15,
                "low_s": 40,
                "seed": 9,
            },
        ),
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
