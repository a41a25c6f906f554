"""The table from status to exception."""

import pickle

import grpc
import pytest
from google.rpc import status_pb2

from rankserve.client import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    Draining,
    FailedPrecondition,
    FieldViolation,
    InternalError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    QuotaViolation,
    RankServeError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from rankserve.client._status import from_status, to_status

C = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (C.INVALID_ARGUMENT, "", InvalidRequest),
        (C.INVALID_ARGUMENT, "PROMPT_TOO_LONG", InvalidRequest),
        (C.OUT_OF_RANGE, "", InvalidRequest),
        (C.ALREADY_EXISTS, "", AlreadyExists),
        (C.NOT_FOUND, "", NotFound),
        (C.FAILED_PRECONDITION, "", FailedPrecondition),
        (C.RESOURCE_EXHAUSTED, "", ResourceExhausted),
        (C.DEADLINE_EXCEEDED, "", DeadlineExceeded),
        (C.CANCELLED, "", Cancelled),
        (C.UNAUTHENTICATED, "", Unauthenticated),
        (C.PERMISSION_DENIED, "", PermissionDenied),
        (C.UNIMPLEMENTED, "", Unimplemented),
        (C.UNAVAILABLE, "", Unavailable),
        (C.UNAVAILABLE, "DRAINING", Draining),
        (C.INTERNAL, "", InternalError),
        (C.UNKNOWN, "", InternalError),
        (C.DATA_LOSS, "", InternalError),
        (C.ABORTED, "ANSWER_LOST", Aborted),
        (C.UNAVAILABLE, "JOURNAL_FAILED", Unavailable),
    ],
)
def test_each_code_and_reason_has_its_exception(
    code: grpc.StatusCode, reason: str, expected: type[RankServeError]
) -> None:
    error = from_status(to_status(RankServeError("why", code=code, reason=reason)))
    assert type(error) is expected
    assert (str(error), error.code, error.reason) == ("why", code, reason)


def test_details_come_through() -> None:
    violations = (FieldViolation("request.prompt", "must not be empty"),)
    quotas = (QuotaViolation("tenant:a", "100 requests wait"),)
    sent = ResourceExhausted(
        "queue is full", reason="QUEUE_FULL", retry_after_s=2.5, violations=violations, quotas=quotas
    )
    error = from_status(to_status(sent))
    assert type(error) is ResourceExhausted
    assert error.retry_after_s == 2.5
    assert error.violations == violations
    assert error.quotas == quotas


def test_a_status_without_details_has_none() -> None:
    error = from_status(to_status(NotFound("gone")))
    assert (error.retry_after_s, error.reason, error.violations) == (None, "", ())


def test_damaged_and_unknown_details_and_codes_are_survived() -> None:
    status = to_status(ResourceExhausted("full", retry_after_s=1.0))
    status.details[0].value = b"\xff\xff\xff"
    status.details.add(type_url="type.googleapis.com/some.Unknown", value=b"x")
    error = from_status(status)
    assert type(error) is ResourceExhausted
    assert error.retry_after_s is None
    assert type(from_status(status_pb2.Status(code=99, message="?"))) is InternalError


def test_errors_pickle() -> None:
    error = pickle.loads(pickle.dumps(ResourceExhausted("full", retry_after_s=1.0)))
    assert (type(error), str(error), error.retry_after_s) == (ResourceExhausted, "full", 1.0)
