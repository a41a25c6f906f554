"""Values of the last seconds, and how fast counters grow."""

import numpy as np
import pytest

from rankserve.server.operations.rolling import Rate, RollingValues


def test_quantiles_are_of_the_values_that_still_count() -> None:
    values = RollingValues(span_s=10.0)
    for n in range(100):
        values.add(float(n), float(n))
    assert values.quantiles(99.0, 0.5, 0.99) == pytest.approx(list(np.quantile(range(89, 100), [0.5, 0.99])))
    assert values.quantiles(200.0, 0.5, 0.99) == [None, None]


def test_it_keeps_no_more_than_it_may() -> None:
    values = RollingValues(span_s=10.0, most=5)
    for n in range(100):
        values.add(0.0, float(n))
    assert values.quantiles(0.0, 0.0) == [95.0]


def test_a_rate_is_growth_over_the_last_looks() -> None:
    rate = Rate(looks=2)
    assert rate.per_s(0.0, 0, 0) == [0.0, 0.0]
    assert rate.per_s(1.0, 10, 1) == [10.0, 1.0]
    assert rate.per_s(2.0, 10, 1) == [5.0, 0.5]
    assert rate.per_s(3.0, 10, 1) == [0.0, 0.0]
    assert rate.per_s(3.0, 10, 1) == [0.0, 0.0]
