import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankserve.server.scheduling.engine_priority import WORST_BAND, engine_priority, sortable

keys = st.floats(allow_nan=False)
bands = st.integers(-WORST_BAND, WORST_BAND)


@settings(deadline=None)
@given(keys, keys)
def test_integers_are_ordered_as_keys(one: float, other: float) -> None:
    assert sortable(min(one, other)) <= sortable(max(one, other))


@settings(deadline=None)
@given(st.floats(width=32, allow_nan=False), st.floats(width=32, allow_nan=False))
def test_float32_keys_are_told_apart_exactly(one: float, other: float) -> None:
    assert (sortable(one) < sortable(other)) == (one < other)
    assert (sortable(one) == sortable(other)) == (one == other)


@settings(deadline=None)
@given(keys)
def test_an_integer_has_53_bits(key: float) -> None:
    assert -(2**52) <= sortable(key) < 2**52


@pytest.mark.parametrize("ageing_tokens_per_s", [1.0, 100.0])
def test_predictions_are_told_apart_at_any_time_of_day(ageing_tokens_per_s: float) -> None:
    for now_s in (1.7e9, 2e9, 4e9):
        lengths = [30.0, 50.0, 90.0, 160.0, 250.0, 370.0, 530.0, 730.0]
        numbers = [sortable(length + ageing_tokens_per_s * now_s) for length in lengths]
        assert numbers == sorted(set(numbers))


def test_neighbours_of_41_bits_are_neighbours() -> None:
    for value in (1.0, 12345.678, 3e38, 1e300):
        neighbour = value + math.ulp(value) * 2**11
        assert sortable(neighbour) == sortable(value) + 1
        assert sortable(-neighbour) == sortable(-value) - 1


def test_zero_has_no_sign_and_infinities_come_last() -> None:
    assert sortable(-0.0) == sortable(0.0) == 0
    order = [-math.inf, -1e300, -3.4e38, -1.0, 0.0, 1e-45, 1.0, 3.4e38, 1e300, math.inf]
    assert all(sortable(one) < sortable(other) for one, other in pairwise(order))


def test_a_key_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        sortable(math.nan)
    with pytest.raises(ValueError, match="not a number"):
        engine_priority(0, math.nan, lower_first=True)


@settings(deadline=None)
@given(bands, keys, bands, keys)
def test_the_band_comes_before_the_key(band: int, key: float, other_band: int, other_key: float) -> None:
    one = engine_priority(band, key, lower_first=True)
    other = engine_priority(other_band, other_key, lower_first=True)
    if one != other:
        assert (one < other) == ((band, sortable(key)) < (other_band, sortable(other_key)))
    else:
        assert (band, sortable(key)) == (other_band, sortable(other_key))


@settings(deadline=None)
@given(bands, keys)
def test_the_other_polarity_is_the_opposite_and_64_bits_hold_both(band: int, key: float) -> None:
    value = engine_priority(band, key, lower_first=True)
    assert engine_priority(band, key, lower_first=False) == -value
    assert -(2**63) < value < 2**63


@settings(deadline=None)
@given(keys)
def test_a_double_holds_those_of_band_0(key: float) -> None:
    value = engine_priority(0, key, lower_first=True)
    assert int(float(value)) == value


@pytest.mark.parametrize("band", [-WORST_BAND - 1, WORST_BAND + 1])
def test_a_band_out_of_range_is_refused(band: int) -> None:
    with pytest.raises(ValueError, match="band is between"):
        engine_priority(band, 0.0, lower_first=True)
