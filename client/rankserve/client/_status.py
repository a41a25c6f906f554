"""gRPC status -> exception: the one table, and the reading of grpc-status details."""

from datetime import timedelta

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from rankserve.client._exceptions import (
    Aborted,
    AlreadyExists,
    Cancelled,
    ConnectionFailed,
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

CODES = {code.value[0]: code for code in grpc.StatusCode}

# What grpc says of a call that this side cancelled; any other such call was cut by a server that stops.
CANCELLED_HERE = ("Locally cancelled by application!", "Channel closed!", "Channel closed.")

# (code, ErrorInfo reason) first, then (code, ""). A code in neither is InternalError.
ERRORS: dict[tuple[grpc.StatusCode, str], type[RankServeError]] = {
    (grpc.StatusCode.INVALID_ARGUMENT, ""): InvalidRequest,
    (grpc.StatusCode.OUT_OF_RANGE, ""): InvalidRequest,
    (grpc.StatusCode.ALREADY_EXISTS, ""): AlreadyExists,
    (grpc.StatusCode.NOT_FOUND, ""): NotFound,
    (grpc.StatusCode.FAILED_PRECONDITION, ""): FailedPrecondition,
    (grpc.StatusCode.RESOURCE_EXHAUSTED, ""): ResourceExhausted,
    (grpc.StatusCode.ABORTED, ""): Aborted,
    (grpc.StatusCode.DEADLINE_EXCEEDED, ""): DeadlineExceeded,
    (grpc.StatusCode.CANCELLED, ""): Cancelled,
    (grpc.StatusCode.UNAUTHENTICATED, ""): Unauthenticated,
    (grpc.StatusCode.PERMISSION_DENIED, ""): PermissionDenied,
    (grpc.StatusCode.UNIMPLEMENTED, ""): Unimplemented,
    (grpc.StatusCode.UNAVAILABLE, ""): Unavailable,
    (grpc.StatusCode.UNAVAILABLE, "DRAINING"): Draining,
}


def from_status(status: status_pb2.Status) -> RankServeError:
    """The exception for a status that the server put into an event."""
    code = CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    info, retry, bad_request, quota = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.RetryInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.QuotaFailure(),
    )
    for detail in status.details:
        for message in (info, retry, bad_request, quota):
            _unpack(detail, message)
    kind = ERRORS.get((code, info.reason)) or ERRORS.get((code, "")) or InternalError
    return kind(
        status.message or code_pb2.Code.Name(code.value[0]),
        code=code,
        reason=info.reason,
        retry_after_s=retry.retry_delay.ToTimedelta().total_seconds()
        if retry.HasField("retry_delay")
        else None,
        violations=tuple(FieldViolation(v.field, v.description) for v in bad_request.field_violations),
        quotas=tuple(QuotaViolation(v.subject, v.description) for v in quota.violations),
    )


def from_rpc_error(error: grpc.RpcError, target: str) -> RankServeError:
    """The exception for a call that failed, sync or async.

    Args:
        error: what grpc or grpc.aio raised.
        target: the server's address, for the message.
    """
    status = _rich_status(error)
    if status is not None:
        return from_status(status)
    code = error.code()
    message = error.details() or ""
    # Without details the status was made by the transport, not by a RankServe server.
    if code is grpc.StatusCode.UNAVAILABLE:
        return ConnectionFailed(f"cannot reach a RankServe server at {target} ({message})", code=code)
    if code is grpc.StatusCode.CANCELLED and message not in CANCELLED_HERE:
        return ConnectionFailed(f"the server at {target} broke the call off ({message})")
    return from_status(status_pb2.Status(code=code.value[0], message=message))


def to_status(error: RankServeError) -> status_pb2.Status:
    """The status that ``from_status`` turns back into an equal exception."""
    status = status_pb2.Status(code=error.code.value[0], message=str(error))
    if error.reason:
        _pack(status, error_details_pb2.ErrorInfo(reason=error.reason, domain="rankserve"))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromTimedelta(timedelta(seconds=error.retry_after_s))
        _pack(status, error_details_pb2.RetryInfo(retry_delay=delay))
    if error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in error.violations
        ]
        _pack(status, error_details_pb2.BadRequest(field_violations=violations))
    if error.quotas:
        quotas = [
            error_details_pb2.QuotaFailure.Violation(subject=q.subject, description=q.description)
            for q in error.quotas
        ]
        _pack(status, error_details_pb2.QuotaFailure(violations=quotas))
    return status


def _pack(status: status_pb2.Status, detail: Message) -> None:
    status.details.add().Pack(detail)


def _rich_status(error: grpc.RpcError) -> status_pb2.Status | None:
    try:
        status: status_pb2.Status | None = rpc_status.from_call(error)
    except (ValueError, DecodeError):
        # Details that contradict the call's own status are not to be trusted.
        return None
    return status


def _unpack(detail: Message, into: Message) -> None:
    try:
        detail.Unpack(into)  # type: ignore[attr-defined]
    except DecodeError:
        into.Clear()
