"""Means over seeds, and how sure they are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
# Equal values differ by this much at most once they are added up.
_ROUNDING = 1e-9


@dataclass(slots=True, frozen=True)
class Interval:
    """A mean and the half width of its 95 % t-interval; 0 for a single value or equal ones."""

    mean: float
    half_width: float

    def __str__(self) -> str:
        """The mean to three significant digits; the half width to its first, or to as many decimals.

        Without a half width where nothing random was in it.
        """
        if self.half_width <= _ROUNDING * abs(self.mean):
            return number(self.mean)
        half_width = f"{self.half_width:,.{max(_decimals(self.mean), _first_decimal(self.half_width))}f}"
        return f"{number(self.mean)} ± {half_width}"


def interval(values: Sequence[float]) -> Interval:
    """The interval of the mean of independent values, one a seed."""
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return Interval(float(array.mean()), 0.0)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(array) - 1))
    return Interval(float(array.mean()), quantile * float(array.std(ddof=1)) / math.sqrt(len(array)))


def ratios(values: Sequence[float], bases: Sequence[float]) -> Interval:
    """The interval of value / base, seed by seed: both ran on the same requests."""
    return interval([value / base for value, base in zip(values, bases, strict=True)])


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:,.{_decimals(value)}f}"


def percent(values: Sequence[float]) -> str:
    """The interval of shares."""
    mean = interval(values)
    return f"{mean.mean:.1%} ± {mean.half_width:.1%}"


def _first_decimal(value: float) -> int:
    """Decimals up to the first digit that is not 0."""
    return min(-math.floor(math.log10(value)), 6) if value > 0 else 0


def _decimals(value: float) -> int:
    if value == 0 or not math.isfinite(value):
        return 0
    return min(max(2 - math.floor(math.log10(abs(value))), 0), 6)
