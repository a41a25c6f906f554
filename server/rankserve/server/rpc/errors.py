"""The one table from errors to gRPC statuses, with google.rpc details."""

import math
from collections.abc import Iterator
from typing import NoReturn

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode, aio
from grpc_status import rpc_status

from rankserve.records.ranker_version import RankerVersionError
from rankserve.server import errors
from rankserve.server.ranking.errors import ScoringError

DOMAIN = "rankserve"

# First match wins. The second value is ErrorInfo.reason, for programs.
_TABLE: tuple[tuple[type[Exception], StatusCode, str], ...] = (
    (errors.InvalidRequest, StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    (errors.RequestIdInUse, StatusCode.ALREADY_EXISTS, "REQUEST_ID_IN_USE"),
    (errors.RequestNotFound, StatusCode.NOT_FOUND, "REQUEST_NOT_FOUND"),
    (errors.NotAuthenticated, StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    (errors.NotPermitted, StatusCode.PERMISSION_DENIED, "NOT_PERMITTED"),
    (errors.TooManyStreams, StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS"),
    (errors.QuotaExceeded, StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED"),
    (errors.QueueFull, StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
    (errors.RequestShed, StatusCode.RESOURCE_EXHAUSTED, "SHED"),
    (errors.SlowClient, StatusCode.RESOURCE_EXHAUSTED, "SLOW_CLIENT"),
    (errors.ServerDraining, StatusCode.UNAVAILABLE, "DRAINING"),
    (errors.StreamLost, StatusCode.CANCELLED, "STREAM_LOST"),
    (errors.RequestCancelled, StatusCode.CANCELLED, "CANCELLED"),
    (errors.DeadlinePassed, StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED"),
    (errors.DeadlineUnreachable, StatusCode.DEADLINE_EXCEEDED, "DEADLINE_UNREACHABLE"),
    (errors.AnswerLost, StatusCode.ABORTED, "ANSWER_LOST"),
    (errors.JournalFailed, StatusCode.UNAVAILABLE, "JOURNAL_FAILED"),
    (errors.EngineFailed, StatusCode.UNAVAILABLE, "ENGINE_FAILED"),
    (errors.EngineRefused, StatusCode.INVALID_ARGUMENT, "ENGINE_REFUSED"),
    (errors.EngineLost, StatusCode.UNAVAILABLE, "ENGINE_LOST"),
    (errors.InternalFailure, StatusCode.INTERNAL, "INTERNAL_FAILURE"),
    (RankerVersionError, StatusCode.FAILED_PRECONDITION, "RANKER_VERSION_UNUSABLE"),
    (ScoringError, StatusCode.UNAVAILABLE, "SCORING_FAILED"),
)


def to_status(error: Exception) -> Status:
    """The google.rpc.Status of one of the errors in the table.

    Raises:
        KeyError: the error is not in the table.
    """
    for kind, code, reason in _TABLE:
        if isinstance(error, kind):
            details: list[Message] = [ErrorInfo(reason=reason, domain=DOMAIN), *_details(error)]
            packed = []
            for detail in details:
                packed.append(Any())
                packed[-1].Pack(detail)
            number: int = code.value[0]
            return Status(code=number, message=str(error), details=packed)
    raise KeyError(type(error))


def _details(error: Exception) -> Iterator[Message]:
    if isinstance(error, errors.InvalidRequest):
        field = BadRequest.FieldViolation(field=error.field, description=error.problem)
        yield BadRequest(field_violations=[field])
    if isinstance(error, errors.QuotaExceeded):
        quota = QuotaFailure.Violation(subject=error.subject, description=error.limit)
        yield QuotaFailure(violations=[quota])
    # Of an ended request that was taken over from a journal it is not known any more.
    if isinstance(error, errors.QueueFull | errors.RequestShed) and hasattr(error, "retry_after_s"):
        retry = RetryInfo()
        # In whole milliseconds.
        retry.retry_delay.FromMilliseconds(math.ceil(error.retry_after_s * 1000))
        yield retry


async def abort(context: aio.ServicerContext[object, object], error: Exception) -> NoReturn:
    """Ends the call with the error's status."""
    status = rpc_status.to_status(to_status(error))
    await context.abort(status.code, status.details, status.trailing_metadata)


def reason_of(error: Exception) -> str:
    """Its ErrorInfo.reason. Raises KeyError if the error is not in the table."""
    for kind, _, reason in _TABLE:
        if isinstance(error, kind):
            return reason
    raise KeyError(type(error))
