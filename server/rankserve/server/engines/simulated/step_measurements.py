"""Step times from measurements of whole steps."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rankserve.server.engines.simulated.csv_table import TableError, read_table
from rankserve.server.engines.simulated.linear_fit import LinearFit
from rankserve.server.engines.simulated.measured_grid import MeasuredGrid, Numbers, two_points
from rankserve.server.engines.simulated.step_time import StepTimes

_COLUMNS = {
    "prefill_tokens": ("prefill_tokens",),
    "decode_sequences": ("decode_sequences", "decode_batch"),
    "context_per_sequence": ("context_per_sequence", "context_per_seq"),
    "step_ms": ("step_ms", "step_ms_kernel_sum"),
}


@dataclass(slots=True, frozen=True)
class MeasuredSteps:
    """Whole steps and how long they took, each column of shape [steps].

    Attributes:
        path: the file that they come from.
        prefill_tokens: prefilled tokens.
        decode_sequences: decoding sequences.
        context_per_sequence: tokens that each of these attends to, on average.
        step_ms: durations.
    """

    path: Path
    prefill_tokens: Numbers
    decode_sequences: Numbers
    context_per_sequence: Numbers
    step_ms: Numbers

    def linear_fit(self) -> LinearFit:
        """Raises TableError if the steps do not vary in all that the fit is over."""
        try:
            return LinearFit.of(
                self.prefill_tokens,
                self.decode_sequences,
                self.decode_sequences * self.context_per_sequence,
                self.step_ms,
            )
        except ValueError as error:
            raise TableError(f"{self.path}: {error}") from error

    def linear_errors(self) -> Numbers:
        """Relative errors of the linear fit at each step."""
        fit = self.linear_fit()
        context = self.decode_sequences * self.context_per_sequence
        return np.abs(fit(self.prefill_tokens, self.decode_sequences, context) / self.step_ms - 1)

    def grid(self) -> MeasuredGrid:
        """The steps on a grid of prefilled tokens, sequences and contexts."""
        points = zip(
            self.prefill_tokens, self.decode_sequences, self.context_per_sequence, self.step_ms, strict=True
        )
        grid = MeasuredGrid(((p, 0.0, n, context if n else 0.0), ms) for p, n, context, ms in points)
        # The least step there is: the time of an empty one only matters for chunks below the smallest.
        grid.set_empty(float(self.step_ms.min()))
        counts = grid.axes[2]
        if counts[-1] - counts[-2:][0] == 1 and all(n == counts[-1] for _, n in grid.pairs_missing()):
            # A full batch has no room for a prefill, so nobody can measure one beside it.
            grid.extend_over_sequences()
        return grid

    def gap(self) -> str:
        """What the steps lack for an interpolation; empty if nothing."""
        grid = self.grid()
        if any(len(axis) < 2 for axis in (grid.axes[0], grid.axes[2], grid.axes[3])):
            return "needs at least two values each of prefill_tokens, decode_sequences and contexts"
        if missing := grid.pairs_missing():
            return (
                f"has no step of {missing[0][0]:g} prefill tokens with {missing[0][1]:g} decoding sequences"
                f" ({len(missing)} such pairs are missing)"
            )
        return ""

    def interpolation(self) -> StepTimes:
        """Raises TableError if the steps do not form a grid."""
        if gap := self.gap():
            raise TableError(f"{self.path}: {gap}; measure that, or fit a line (--method linear)")
        grid = self.grid()
        chunks, histories, counts, contexts = grid.axes
        histories, times = two_points(histories, grid.times, 1)
        nothing, zeros = np.array([0.0, 1.0]), np.zeros(2)
        return StepTimes(
            chunk_axis=chunks,
            history_axis=histories,
            sequences_axis=counts,
            context_axis=contexts,
            attention_ms=times,
            tokens_axis=nothing,
            tokens_ms=zeros,
            sampled_axis=nothing,
            sampled_ms=zeros,
            straggler_ms=0.0,
            overhead_ms=0.0,
        )


def read_steps(path: Path) -> MeasuredSteps:
    """Reads a CSV of prefill_tokens, decode_sequences, context_per_sequence, step_ms.

    Raises:
        TableError: it cannot be used.
    """
    numbers, _ = read_table(path, _COLUMNS)
    columns = {name: np.array(values) for name, values in numbers.items()}
    for index in np.flatnonzero(columns["step_ms"] <= 0):
        raise TableError(f"{path}, measurement {index + 1}: step_ms must be more than 0; remove the line")
    for index in np.flatnonzero(columns["prefill_tokens"] + columns["decode_sequences"] == 0):
        raise TableError(f"{path}, measurement {index + 1}: a step without tokens; remove the line")
    return MeasuredSteps(path=path, **columns)
