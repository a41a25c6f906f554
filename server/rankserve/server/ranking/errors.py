"""What scoring can fail with.

RuntimeError
└── ScoringError              one prompt or batch got no score
RankerVersionError            (rankserve.records) a version cannot be used
├── ProviderUnavailableError  it could be, but not on the hardware that was asked for
└── OtherScoresError          it scores, but not as where it was exported
"""

from enum import StrEnum

from rankserve.records.ranker_version import RankerVersionError

__all__ = [
    "FailureKind",
    "OtherScoresError",
    "ProviderUnavailableError",
    "RankerVersionError",
    "ScoringError",
]


class FailureKind(StrEnum):
    """Why a prompt got no score; few values, so fit for a metric label."""

    MODEL = "model"
    LATE = "late"
    STUCK = "stuck"
    OVERLOADED = "overloaded"
    CLOSED = "closed"


class ScoringError(RuntimeError):
    """A prompt got no score. The message never holds the prompt."""

    def __init__(self, message: str, kind: FailureKind = FailureKind.MODEL) -> None:
        super().__init__(message)
        self.kind = kind


class ProviderUnavailableError(RankerVersionError):
    """ONNX Runtime did not give an execution provider that was asked for and required."""


class OtherScoresError(RankerVersionError):
    """A version gives its probe prompts finite scores that are not those recorded at export."""
