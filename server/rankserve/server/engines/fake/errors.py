"""Errors in vLLM's format."""

from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

# vLLM names the type of an error after its exception where it has one of its own.
_TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}


class EngineError(Exception):
    """What a client is told instead of an answer.

    Args:
        status: of HTTP.
        message: for people.
        param: the field it is about.
        kind: `type` of the error; None takes the one that fits the status.
        headers: to answer with.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        kind: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.kind = kind or _TYPES.get(status) or HTTPStatus(status).phrase
        self.headers = headers

    @property
    def body(self) -> dict[str, Any]:
        return {
            "error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.status},
        }

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)
