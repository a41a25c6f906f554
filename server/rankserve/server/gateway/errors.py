"""What is answered without asking the engine, as OpenAI's clients read it."""

import json
from typing import Any

from starlette.types import Send


class RefusalError(Exception):
    """A request that does not reach the engine.

    Args:
        status: of HTTP.
        code: for programs.
        message: shown to the client.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    async def send(self, send: Send) -> None:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error: dict[str, Any] = {"message": str(self), "type": kind, "param": None, "code": self.code}
        body = json.dumps({"error": error}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if self.status < 500:
            # The rest of a body that nobody reads.
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
