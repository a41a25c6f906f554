"""Errors as OpenAI's clients read them. What a `RequestError` means is said in one table, `rpc.errors`."""

import math
from dataclasses import dataclass
from typing import Any

from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc import StatusCode
from starlette.responses import JSONResponse

from rankserve.server.errors import InternalFailure, RequestError
from rankserve.server.rpc.errors import to_status

# As google.rpc.Code documents it; 499 is what nginx calls a request that its client gave up.
_HTTP_STATUS = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.ABORTED: 409,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.CANCELLED: 499,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DEADLINE_EXCEEDED: 504,
}
_HTTP_STATUS_OF_CODE = {code.value[0]: status for code, status in _HTTP_STATUS.items()}
_SERVER_ERROR = 500

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
# OpenAI's clients repeat 408, 409 and everything from 500 up by themselves. These would end the same way.
_FINAL = tuple(
    code.value[0]
    for code in (
        StatusCode.ALREADY_EXISTS,
        StatusCode.CANCELLED,
        StatusCode.UNIMPLEMENTED,
        StatusCode.DEADLINE_EXCEEDED,
    )
)


class HttpError(Exception):
    """What only a caller over HTTP can get wrong. The message is shown to it.

    Args:
        status: of HTTP.
        code: for programs.
        message: says what to do.
        param: the parameter it is about.
        headers: to answer with, beside those of every error.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = headers or {}


@dataclass(slots=True, frozen=True)
class Failure:
    """An error on its way to the client: as a response, or as the last event of a stream."""

    status: int
    message: str
    code: str
    param: str | None
    headers: dict[str, str]

    @property
    def body(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else _TYPES.get(self.status, "invalid_request_error")
        return {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code},
        }

    def response(self, request_id: str | None = None) -> JSONResponse:
        headers = dict(self.headers)
        if request_id:
            headers["x-request-id"] = request_id
        return JSONResponse(self.body, self.status, headers)


def to_failure(error: RequestError | HttpError) -> Failure:
    """How a client is told. Whatever is in no table is an internal failure, and says no more than that."""
    if isinstance(error, HttpError):
        return Failure(error.status, str(error), error.code, error.param, error.headers)
    try:
        status = to_status(error)
    except KeyError:
        status = to_status(InternalFailure())
    http_status = _HTTP_STATUS_OF_CODE.get(status.code, _SERVER_ERROR)
    headers = {}
    if status.code in _FINAL:
        headers["x-should-retry"] = "false"
    if http_status == 503:
        # A retry on this connection would come back here.
        headers["connection"] = "close"
    info, bad_request, retry = ErrorInfo(), BadRequest(), RetryInfo()
    for detail in status.details:
        if detail.Unpack(retry):
            delay_ms = retry.retry_delay.ToMilliseconds()
            headers["retry-after"] = str(math.ceil(delay_ms / 1000))
            headers["retry-after-ms"] = str(delay_ms)
        elif not detail.Unpack(info):
            detail.Unpack(bad_request)
    violations = bad_request.field_violations
    param = violations[0].field if violations else None
    return Failure(http_status, status.message, info.reason.lower(), param, headers)
