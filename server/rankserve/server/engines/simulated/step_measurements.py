"""Step times from measurements of whole steps."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankserve.server.engines.simulated.csv_table import TableError, read_table
from rankserve.server.engines.simulated.linear_fit import LinearFit
from rankserve.server.engines.simulated.measured_grid import MeasuredGrid, Numbers, two_points
from rankserve.server.engines.simulated.prefill_pairs import fit_pair_ms, without_pairs
from rankserve.server.engines.simulated.step_time import StepTimes, step_ms

_COLUMNS = {
    "prefill_tokens": ("prefill_tokens",),
    "decode_sequences": ("decode_sequences", "decode_batch"),
    "context_per_sequence": ("context_per_sequence", "context_per_seq"),
    "step_ms": ("step_ms", "step_ms_kernel_sum"),
}


@dataclass(slots=True, frozen=True)
class Steps:
    """Steps and how long they took, each column of shape [steps].

    Attributes:
        prefill_tokens: prefilled tokens.
        decode_sequences: decoding sequences.
        context_per_sequence: tokens that each of these attends to, on average.
        step_ms: durations.
        prompts: prompts that the prefilled tokens are of, equally long.
    """

    prefill_tokens: Numbers
    decode_sequences: Numbers
    context_per_sequence: Numbers
    step_ms: Numbers
    prompts: Numbers

    def where(self, chosen: NDArray[np.bool_]) -> "Steps":
        return Steps(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(slots=True, frozen=True)
class MeasuredSteps:
    """Whole steps and how long they took.

    Attributes:
        path: the file that they come from.
        single: steps with one prompt at most.
        several: steps with several prompts.
    """

    path: Path
    single: Steps
    several: Steps

    def linear_fit(self) -> LinearFit:
        """Raises TableError if the steps do not vary in all that the fit is over."""
        steps = self.single
        try:
            return LinearFit.of(
                steps.prefill_tokens,
                steps.decode_sequences,
                steps.decode_sequences * steps.context_per_sequence,
                steps.step_ms,
            )
        except ValueError as error:
            raise TableError(f"{self.path}: {error}") from error

    def linear_errors(self) -> Numbers:
        """Relative errors of the linear fit at each step."""
        fit, steps = self.linear_fit(), self.single
        context = steps.decode_sequences * steps.context_per_sequence
        return np.abs(fit(steps.prefill_tokens, steps.decode_sequences, context) / steps.step_ms - 1)

    def grid(self) -> MeasuredGrid:
        """The steps on a grid of prefilled tokens, sequences and contexts."""
        steps = self.single
        points = zip(
            *(steps.prefill_tokens, steps.decode_sequences, steps.context_per_sequence, steps.step_ms),
            strict=True,
        )
        grid = MeasuredGrid(((p, 0.0, n, context if n else 0.0), ms) for p, n, context, ms in points)
        # The least step there is: the time of an empty one only matters for chunks below the smallest.
        grid.set_empty(float(steps.step_ms.min()))
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
        histories, table = two_points(histories, grid.times, 1)
        nothing, zeros = np.array([0.0, 1.0]), np.zeros(2)
        times = StepTimes(
            chunk_axis=chunks,
            history_axis=histories,
            sequences_axis=counts,
            context_axis=contexts,
            attention_ms=table,
            tokens_axis=nothing,
            tokens_ms=zeros,
            sampled_axis=nothing,
            sampled_ms=zeros,
            straggler_ms=0.0,
            prefill_pair_ms=0.0,
            overhead_ms=0.0,
        )
        return without_pairs(times, self._pair_ms(times)) if len(self.several.prompts) else times

    def _pair_ms(self, times: StepTimes) -> float:
        several = self.several
        counts = several.decode_sequences.astype(int)
        contexts = np.rint(counts * several.context_per_sequence).astype(int)
        of_one_prompt = [
            step_ms(times, tokens, 0, 0, count, context, 0, count)
            for tokens, count, context in zip(
                several.prefill_tokens.astype(int).tolist(), counts.tolist(), contexts.tolist(), strict=True
            )
        ]
        return fit_pair_ms(np.array(of_one_prompt) - several.step_ms, several.prefill_tokens, several.prompts)


def read_steps(path: Path) -> MeasuredSteps:
    """Reads a CSV of prefill_tokens, decode_sequences, context_per_sequence, step_ms and maybe prompts.

    Raises:
        TableError: it cannot be used.
    """
    numbers, _ = read_table(path, _COLUMNS, defaults={"prompts": 1.0})
    steps = Steps(**{name: np.array(values) for name, values in numbers.items()})
    for index in np.flatnonzero(steps.step_ms <= 0):
        raise TableError(f"{path}, measurement {index + 1}: step_ms must be more than 0; remove the line")
    for index in np.flatnonzero(steps.prefill_tokens + steps.decode_sequences == 0):
        raise TableError(f"{path}, measurement {index + 1}: a step without tokens; remove the line")
    several = steps.prompts > 1
    for index in np.flatnonzero(several & (steps.prefill_tokens < steps.prompts)):
        raise TableError(f"{path}, measurement {index + 1}: more prompts than prefilled tokens; correct it")
    return MeasuredSteps(path, steps.where(~several), steps.where(several))
