"""What can go wrong, as exceptions.

RankServeError
├── InvalidRequest        the request breaks a rule; says which field
├── AlreadyExists         the id was used before with another body
├── NotFound              no such request or ranker version
├── FailedPrecondition    the server's state does not allow it, such as a damaged ranker version
├── ResourceExhausted     a queue or a quota is full; try again after `retry_after_s`
├── Aborted               a restart of the server lost what the answer went on from
├── DeadlineExceeded      the request's deadline or the client's timeout passed
├── Cancelled             the request was cancelled
├── Unauthenticated       no token, or one the server does not know
├── PermissionDenied      the token does not allow this
├── Unimplemented         the server does not offer this
├── Unavailable           the server cannot serve now; try again, here or elsewhere
│   ├── ConnectionFailed  it could not be reached, or the connection broke
│   └── Draining          it is shutting down; submit elsewhere
└── InternalError         the server's own fault
"""

# ruff: noqa: N818 - named after the gRPC codes that people know.

from dataclasses import dataclass

import grpc


@dataclass(slots=True, frozen=True)
class FieldViolation:
    """One rule that a request breaks."""

    field: str
    description: str


@dataclass(slots=True, frozen=True)
class QuotaViolation:
    """One limit that was reached: whose it is, such as "tenant:a", and which."""

    subject: str
    description: str


class RankServeError(Exception):
    """Base of every error of this package.

    Attributes:
        code: the gRPC status code it came with, or stands for.
        reason: machine-readable cause, such as "DRAINING"; empty if the server gave none.
        retry_after_s: how long the server asks to wait before another try, or None.
        violations: the fields of the request that break a rule.
        quotas: the limits that were reached, of whom.
    """

    default_code = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        retry_after_s: float | None = None,
        violations: tuple[FieldViolation, ...] = (),
        quotas: tuple[QuotaViolation, ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.violations = violations
        self.quotas = quotas


class InvalidRequest(RankServeError):
    """The request breaks a rule; ``violations`` says which field."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT


class AlreadyExists(RankServeError):
    """The id was used before with another body. With the same body it would have been the same request."""

    default_code = grpc.StatusCode.ALREADY_EXISTS


class NotFound(RankServeError):
    """No such request (any more) or ranker version."""

    default_code = grpc.StatusCode.NOT_FOUND


class FailedPrecondition(RankServeError):
    """The server's state does not allow it, for example because a ranker version is damaged."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class ResourceExhausted(RankServeError):
    """A queue or a quota is full; ``quotas`` says whose. Try again after ``retry_after_s``."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Aborted(RankServeError):
    """The server restarted amid the answer and could not go on from there. Submit it with a new id."""

    default_code = grpc.StatusCode.ABORTED


class DeadlineExceeded(RankServeError):
    """The request's own deadline or this client's timeout passed."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED


class Cancelled(RankServeError):
    """The request was cancelled."""

    default_code = grpc.StatusCode.CANCELLED


class Unauthenticated(RankServeError):
    """No token was sent, or one that the server does not know."""

    default_code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(RankServeError):
    """The token is known and does not allow this."""

    default_code = grpc.StatusCode.PERMISSION_DENIED


class Unimplemented(RankServeError):
    """The server does not offer this."""

    default_code = grpc.StatusCode.UNIMPLEMENTED


class Unavailable(RankServeError):
    """The server cannot serve now; ``reason`` says why, such as "JOURNAL_FAILED". Try again or elsewhere."""

    default_code = grpc.StatusCode.UNAVAILABLE


class ConnectionFailed(Unavailable):
    """The server could not be reached, or the connection broke."""


class Draining(Unavailable):
    """The server is shutting down and took no more work. Submit elsewhere."""


class InternalError(RankServeError):
    """The server's own fault."""

    default_code = grpc.StatusCode.INTERNAL
