"""The judge of leaks sees those that are there and no others."""

import numpy as np
import pytest
from support.leaks import Held, Soak, growth

EXACT = Held(0, 0, 0)
CALM = [Held(20, 12, 9)] * 10


def soak(mib_per_min: float = 0.0, *, noise_mib: float = 3.0, idle: list[Held] | None = None) -> Soak:
    """Ten minutes of samples, one a second: noise, and now and then a peak."""
    draw = np.random.default_rng(1)
    times_s = np.arange(600.0)
    rss_mib = 200 + mib_per_min * times_s / 60 + draw.normal(scale=noise_mib, size=600)
    rss_mib[::37] += 80
    return Soak(times_s.tolist(), rss_mib.tolist(), CALM if idle is None else idle)


def leaks(seen: Soak, tolerance: Held = EXACT) -> set[str]:
    return seen.leaks(max_mib_per_min=1.0, tolerance=tolerance)


def test_noise_and_peaks_are_no_leak() -> None:
    assert leaks(soak()) == set()


def test_a_slope_is_seen_through_the_noise() -> None:
    seen = soak(2.0)
    slope = seen.memory()
    assert slope.low < 2.0 < slope.high
    assert slope.per_min == pytest.approx(2.0, abs=0.3)
    assert leaks(seen) == {"memory"}
    assert leaks(soak(0.5)) == set()


def test_steps_of_the_warm_up_do_not_fool_it() -> None:
    seen = soak()
    for step_s in (20, 60, 120, 190):
        seen.rss_mib[step_s:] = [rss + 40 for rss in seen.rss_mib[step_s:]]
    warming = [Held(5 * n, 4 * n, 3 * n) for n in range(3)]
    seen.idle = warming + [Held(20, 12, 9)] * 7
    assert leaks(seen) == set()


@pytest.mark.parametrize("name", ["fds", "threads", "tasks"])
def test_what_grows_from_one_idle_moment_to_the_next_is_seen(name: str) -> None:
    held = {"fds": 20, "threads": 12, "tasks": 9}
    growing = [Held(**{**held, name: held[name] + n}) for n in range(10)]
    assert leaks(soak(idle=growing)) == {name}
    assert leaks(soak(idle=growing), tolerance=Held(10, 10, 10)) == set()


def test_fewer_at_the_end_is_no_leak_and_one_odd_moment_neither() -> None:
    assert leaks(soak(idle=[*[Held(25, 14, 9)] * 5, *[Held(20, 12, 9)] * 5])) == set()
    twelve = [Held(20, 12, 9)] * 14
    twelve[-1] = Held(30, 12, 9)
    assert leaks(soak(idle=twelve)) == set()


def test_too_few_samples_are_an_error() -> None:
    with pytest.raises(ValueError, match="1 samples after the warm-up"):
        growth([0.0, 10.0], [1.0, 1.0], start_s=5.0)
