"""Functions for keys, of a number or of each number of an array.

Simulators compute the keys of whole columns of requests at once. Arrays go through the same functions of
`math` as single numbers, so both ways give bit-identical keys and thus the same order.
"""

import math
from collections.abc import Callable


def log(value: float) -> float:
    return _each(math.log, value)


def at_least_one(value: float) -> float:
    return _each(lambda x: max(x, 1.0), value)


def floor(value: float) -> float:
    """The largest whole number not above the value; infinity stays."""
    return _each(lambda x: float(math.floor(x)) if math.isfinite(x) else x, value)


def lognormal_sigma(median: float, p90: float) -> float:
    """Sigma of the lognormal with these quantiles; 0 without a 90th percentile above the median."""
    return _each(_lognormal_sigma, median, p90)


def exp(value: float) -> float:
    return _each(math.exp, value)


# The 90th percentile of the standard normal distribution.
_Z90 = 1.2815515655446004
# A calibration that says more says nothing; its square must stay a number.
_MOST_SIGMA = 5.0


def _lognormal_sigma(median: float, p90: float) -> float:
    return min(math.log(p90 / median) / _Z90, _MOST_SIGMA) if 0 < median < p90 < math.inf else 0.0


def _each(function: Callable[..., float], *values: float) -> float:
    if all(isinstance(value, int | float) for value in values):
        return function(*values)
    import numpy as np

    columns = np.broadcast_arrays(*values)
    flat = [function(*row) for row in zip(*(column.ravel().tolist() for column in columns), strict=True)]
    return np.array(flat).reshape(columns[0].shape)  # type: ignore[return-value]
