"""Our tau-b is scipy's."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.stats import kendalltau

from rankserve.server.metrics.kendall import kendall_tau_b

few = st.integers(-3, 3)
many = st.integers(-(10**6), 10**6)
real = st.floats(allow_nan=False, width=32)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.one_of(st.tuples(few, few), st.tuples(few, many), st.tuples(real, few)), min_size=2, max_size=200
    )
)
def test_it_is_that_of_scipy_with_ties_and_without(pairs: list[tuple[float, float]]) -> None:
    x, y = zip(*pairs, strict=True)
    expected = float(kendalltau(x, y, variant="b").statistic)
    ours = kendall_tau_b(x, y)
    if math.isnan(expected):
        assert ours is None
    else:
        assert ours == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [2, 3, 127, 128, 129, 1000, 70_000])
def test_any_size_is_right(size: int) -> None:
    random = np.random.default_rng(size)
    x = random.normal(size=size).round(2)
    y = x + random.normal(size=size).round(1)
    expected = float(kendalltau(x, y, variant="b").statistic)
    assert kendall_tau_b(x, y) == pytest.approx(expected, abs=1e-12)


def test_a_perfect_order_is_one_and_its_reverse_minus_one() -> None:
    assert kendall_tau_b([1, 2, 3, 4], [10, 20, 30, 40]) == 1.0
    assert kendall_tau_b([1, 2, 3, 4], [40, 30, 20, 10]) == -1.0


@pytest.mark.parametrize(
    ("x", "y"), [([], []), ([1.0], [2.0]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5])]
)
def test_there_is_none_without_an_order_to_compare(x: list[float], y: list[float]) -> None:
    assert kendall_tau_b(x, y) is None


def test_sequences_of_different_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match="x has 2 values, y 3"):
        kendall_tau_b([1, 2], [1, 2, 3])
