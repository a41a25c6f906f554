"""Step time as a linear function of what is in the step."""

import math
from dataclasses import dataclass

import numpy as np

from rankserve.server.engines.simulated.measured_grid import Numbers
from rankserve.server.engines.simulated.step_time import StepTimes

# Far apart, so that extrapolation beyond them does not magnify rounding.
_POINTS = np.array([0.0, 1024.0])


@dataclass(slots=True, frozen=True)
class LinearFit:
    """base + a x prefill tokens + b x decoding sequences + c x tokens those attend to, in ms.

    Attributes:
        base_ms: time of an empty step.
        per_prefill_token_ms: added by each prefilled token.
        per_decode_sequence_ms: added by each decoding sequence.
        per_context_token_ms: added by each token that a decoding sequence attends to.

    Raises:
        ValueError: a coefficient is negative or no number.
    """

    base_ms: float
    per_prefill_token_ms: float = 0.0
    per_decode_sequence_ms: float = 0.0
    per_context_token_ms: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number of at least 0, got {getattr(self, name)}")

    @classmethod
    def of(
        cls, prefill_tokens: Numbers, decode_sequences: Numbers, context_tokens: Numbers, step_ms: Numbers
    ) -> "LinearFit":
        """Least squares of the relative error; coefficients are not negative.

        Raises:
            ValueError: the steps do not vary in all three.
        """
        features = np.stack([np.ones(len(step_ms)), prefill_tokens, decode_sequences, context_tokens], 1)
        scale = np.maximum(features.max(axis=0), 1e-12)
        if np.linalg.matrix_rank(features / scale) < features.shape[1]:
            raise ValueError(
                "too few different steps for a linear fit; vary prefill tokens, decoding sequences and"
                " their context independently"
            )
        weighted = features / scale / step_ms[:, None]
        used = np.ones(features.shape[1], dtype=bool)
        while True:
            solution = np.zeros(len(used))
            solution[used] = np.linalg.lstsq(weighted[:, used], np.ones(len(step_ms)))[0]
            if not (solution < 0).any():
                return cls(*(float(value) for value in solution / scale))
            used &= solution >= 0

    def __call__(
        self, prefill_tokens: Numbers, decode_sequences: Numbers, context_tokens: Numbers
    ) -> Numbers:
        """Durations in ms of steps whose columns these are."""
        return (
            self.base_ms
            + self.per_prefill_token_ms * prefill_tokens
            + self.per_decode_sequence_ms * decode_sequences
            + self.per_context_token_ms * context_tokens
        )

    def step_times(self) -> StepTimes:
        """The same as grids of two points an axis."""
        tokens = _POINTS[:, None, None, None]
        sequences, context = _POINTS[None, None, :, None], _POINTS[None, None, None, :]
        times = self(tokens, sequences, sequences * context)
        zeros = np.zeros(2)
        return StepTimes(
            chunk_axis=_POINTS,
            history_axis=_POINTS,
            sequences_axis=_POINTS,
            context_axis=_POINTS,
            attention_ms=np.ascontiguousarray(np.broadcast_to(times, (2, 2, 2, 2))),
            tokens_axis=_POINTS,
            tokens_ms=zeros,
            sampled_axis=_POINTS,
            sampled_ms=zeros,
            straggler_ms=0.0,
            prefill_pair_ms=0.0,
            overhead_ms=0.0,
        )
