"""A body from the socket to a JSON object, with a bound on everything."""

import asyncio
from typing import Any

from pydantic_core import from_json
from starlette.requests import Request

from rankserve.server.errors import InvalidRequest, QueueFull
from rankserve.server.front_door.errors import HttpError

# A client that is told 413 while it still writes sees its connection break, not the answer.
_MAX_DISCARDED_BYTES = 8 << 20
_RETRY_AFTER_S = 1.0


class BodyReader:
    """Reads the bodies of all requests.

    Args:
        max_bytes: of one body.
        max_total_bytes: of all bodies that are being read at a time.
        timeout_s: for one body to arrive.
    """

    def __init__(self, max_bytes: int, max_total_bytes: int, timeout_s: float) -> None:
        self._max_bytes = max_bytes
        self._max_total_bytes = max_total_bytes
        self._timeout_s = timeout_s
        self._reading_bytes = 0

    async def read(self, request: Request) -> dict[str, Any]:
        """The JSON object that a request carries.

        Raises:
            HttpError: not JSON by its headers, too large, or too slow.
            InvalidRequest: no JSON object.
            QueueFull: too much is being read.
            ClientDisconnect: the client is gone.
        """
        _check_headers(request)
        try:
            async with asyncio.timeout(self._timeout_s):
                raw = await self._read_bytes(request)
        except TimeoutError:
            message = f"the body did not arrive within {self._timeout_s:g} s"
            raise HttpError(408, "body_timeout", message, headers={"connection": "close"}) from None
        try:
            fields = from_json(raw, allow_inf_nan=False)
        except ValueError as error:
            raise InvalidRequest("body", f"is not valid JSON in UTF-8: {error}") from None
        if not isinstance(fields, dict):
            raise InvalidRequest("body", "must be a JSON object")
        return fields

    async def _read_bytes(self, request: Request) -> bytes:
        announced = request.headers.get("content-length", "0")
        if int(announced) > self._max_bytes + _MAX_DISCARDED_BYTES:
            raise self._too_large()
        body = bytearray()
        received = 0
        try:
            async for chunk in request.stream():
                received += len(chunk)
                if received > self._max_bytes + _MAX_DISCARDED_BYTES:
                    raise self._too_large()
                if received > self._max_bytes:
                    self._reading_bytes -= len(body)
                    body.clear()
                    continue
                self._reading_bytes += len(chunk)
                body += chunk
                if self._reading_bytes > self._max_total_bytes:
                    read = f"{self._max_total_bytes >> 20} MiB of requests are being read"
                    raise QueueFull(read, _RETRY_AFTER_S)
        finally:
            self._reading_bytes -= len(body)
        if received > self._max_bytes:
            raise self._too_large()
        return bytes(body)

    def _too_large(self) -> HttpError:
        message = f"the body is larger than {self._max_bytes} bytes"
        return HttpError(413, "request_too_large", message, headers={"connection": "close"})


def _check_headers(request: Request) -> None:
    # A web page may post text or a form to any address without asking, but not JSON.
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HttpError(415, "unsupported_media_type", "send the header 'content-type: application/json'")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HttpError(415, "unsupported_encoding", "send the body without content-encoding")
