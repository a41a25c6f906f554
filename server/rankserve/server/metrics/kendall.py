"""Kendall's tau-b in O(n log n), for a server that has numpy and no scipy.

After Knight, "A Computer Method for Calculating Kendall's Tau with Ungrouped Data" (JASA 1966).
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def kendall_tau_b(x: ArrayLike, y: ArrayLike) -> float | None:
    """Rank correlation of two sequences of equal length, ties allowed; as `scipy.stats.kendalltau`.

    None where there is no order to compare: fewer than two pairs, or all equal on one side. Neither may hold
    NaN.
    """
    ranks_x, ranks_y = _ranks(x), _ranks(y)
    if len(ranks_x) != len(ranks_y):
        raise ValueError(f"x has {len(ranks_x)} values, y {len(ranks_y)}")
    count = len(ranks_x)
    pairs = count * (count - 1) // 2
    tied_x, tied_y = _tied_pairs(ranks_x), _tied_pairs(ranks_y)
    if tied_x == pairs or tied_y == pairs:
        return None
    # Pairs tied in x are in order of y, so that none of them counts as discordant.
    order = np.lexsort((ranks_y, ranks_x))
    discordant = _inversions(ranks_y[order])
    tied_both = _tied_pairs(ranks_x.astype(np.int64) * count + ranks_y)
    concordant = pairs - tied_x - tied_y + tied_both - discordant
    tau = (concordant - discordant) / (math.sqrt(pairs - tied_x) * math.sqrt(pairs - tied_y))
    return max(-1.0, min(1.0, tau))


def _ranks(values: ArrayLike) -> NDArray[np.integer]:
    """Dense ranks from 0, in the smallest type: numpy sorts 16-bit integers by radix."""
    ranks: NDArray[np.integer] = np.unique(np.asarray(values), return_inverse=True)[1].ravel()
    return ranks.astype(np.uint16 if len(ranks) <= 1 << 16 else np.int64)


def _tied_pairs(values: NDArray[np.integer]) -> int:
    counts = np.unique(values, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


def _inversions(ranks: NDArray[np.integer]) -> int:
    """Pairs in which the earlier one is larger: merge sort, every merge of a level at once."""
    size = 1 << max(len(ranks) - 1, 0).bit_length()
    # The filling is as large as the largest and comes last, so it is in no inversion.
    rows = np.full(size, ranks.max(initial=0), dtype=ranks.dtype)
    rows[: len(ranks)] = ranks
    inversions = 0
    width = 1
    while width < size:
        rows = rows.reshape(-1, 2 * width)
        order = np.argsort(rows, axis=1, kind="stable")
        from_left = order < width
        left_before = np.cumsum(from_left, axis=1)
        inversions += int((width - left_before)[~from_left].sum())
        rows = np.take_along_axis(rows, order, axis=1)
        width *= 2
    return inversions
