"""Measurements on a grid, completed where points are missing."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
# (prefilled tokens, KV before them, decoding sequences, context of each)
Point = tuple[float, float, float, float]


class MeasuredGrid:
    """Times over (chunk, history, sequences, context).

    Measurements need not fill the product of their axes: each pair of chunk and sequences may have its own
    histories, and each of those its own contexts. In between, and beyond, neighbours give the rest linearly.

    Attributes:
        axes: the values that occur, ascending, for each of the four.
        times: [chunk, history, sequences, context], NaN where a pair of chunk and sequences was not measured.
    """

    def __init__(self, measurements: Iterable[tuple[Point, float]]) -> None:
        pairs: dict[tuple[float, float], dict[float, dict[float, float]]]
        pairs = defaultdict(lambda: defaultdict(dict))
        for (chunk, history, sequences, context), time in measurements:
            pairs[chunk, sequences][history][context] = time
        chunks = sorted({chunk for chunk, _ in pairs} | {0.0})
        counts = sorted({count for _, count in pairs} | {0.0})
        histories = sorted({history for rows in pairs.values() for history in rows})
        contexts = sorted(
            {context for (_, n), rows in pairs.items() if n for row in rows.values() for context in row}
        ) or [0.0]
        self.axes = tuple(np.array(axis) for axis in (chunks, histories, counts, contexts))
        self.times = np.full([len(axis) for axis in self.axes], np.nan)
        for (chunk, count), rows in pairs.items():
            known = np.array([_resampled(row, self.axes[3]) for _, row in sorted(rows.items())])
            at = np.array(sorted(rows))
            slab = np.stack([piecewise(at, column, self.axes[1]) for column in known.T], axis=-1)
            self.times[chunks.index(chunk), :, counts.index(count), :] = slab

    def pairs_missing(self) -> list[tuple[float, float]]:
        """Pairs of chunk and sequences without a measurement, except (0, 0)."""
        missing = np.argwhere(np.isnan(self.times[:, 0, :, 0]))
        pairs = [(float(self.axes[0][i]), float(self.axes[2][j])) for i, j in missing]
        return [pair for pair in pairs if pair != (0.0, 0.0)]

    def set_empty(self, time: float) -> None:
        """Says how long a step takes that neither prefills nor decodes."""
        self.times[0, :, 0, :] = time

    def extend_over_sequences(self) -> None:
        """Fills pairs of chunk and sequences that are missing from the same chunk's other counts."""
        counts = self.axes[2]
        for slab in self.times:
            known = ~np.isnan(slab[0, :, 0])
            if known.any() and not known.all():
                for rows in slab:
                    for column in rows.T:
                        column[~known] = piecewise(counts[known], column[known], counts[~known])


def piecewise(axis: Numbers, values: Numbers, at: Numbers) -> Numbers:
    """Linear between the points and beyond the last two, constant before the first; [len(at)]."""
    inside: Numbers = np.interp(at, axis, values)
    if len(axis) < 2:
        return inside
    slope = (values[-1] - values[-2]) / (axis[-1] - axis[-2])
    return np.where(at > axis[-1], values[-1] + slope * (at - axis[-1]), inside)


def two_points(axis: Numbers, values: Numbers, dimension: int) -> tuple[Numbers, Numbers]:
    """An axis of one point as two with the same values, since a line needs two."""
    if len(axis) > 1:
        return axis, values
    return np.array([axis[0], axis[0] + 1]), np.repeat(values, 2, axis=dimension)


def _resampled(row: dict[float, float], axis: Numbers) -> Numbers:
    at = np.array(sorted(row))
    return piecewise(at, np.array([row[key] for key in sorted(row)]), axis)
