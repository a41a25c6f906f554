"""Quantiles of output lengths some of which are only known to be "at least"."""

import numpy as np
import numpy.typing as npt


def censored_quantile(lengths: npt.NDArray[np.int64], censored: npt.NDArray[np.bool_], share: float) -> float:
    """The smallest length that at least `share` of the answers do not exceed.

    The product-limit estimate (Kaplan and Meier 1958); without censoring that is the ordinary quantile. Where
    so many answers were cut off that it cannot be told, the longest length: a lower bound.

    Args:
        lengths: [answers], at least one.
        censored: [answers], whether an answer was cut off at its length.
        share: from 0 to 1.
    """
    values, position = np.unique(lengths, return_inverse=True)
    ended = np.bincount(position, weights=~censored, minlength=len(values))
    at_risk = np.bincount(position, minlength=len(values))[::-1].cumsum()[::-1]
    exceeding = np.cumprod(1.0 - ended / at_risk)
    # A product of fractions misses a round share by its last bits.
    reached = np.flatnonzero(exceeding <= 1.0 - share + 1e-9)
    return float(values[reached[0]] if len(reached) else values[-1])
