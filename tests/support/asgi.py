"""Calls an ASGI application as a server does, without sockets."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(slots=True)
class Echo:
    """An application that keeps what it is asked, and answers "ok"."""

    bodies: list[bytes] = field(default_factory=list)
    headers: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    lived: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            self.lived = True
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        self.bodies.append(body)
        self.headers.append(list(scope["headers"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    @property
    def fields(self) -> dict[str, Any]:
        """The last body."""
        fields: dict[str, Any] = json.loads(self.bodies[-1])
        return fields

    def header(self, name: bytes) -> list[bytes]:
        """Of the last request."""
        return [value for given, value in self.headers[-1] if given == name]


async def call(
    application: ASGIApp,
    body: object,
    *,
    path: str = "/v1/completions",
    headers: Sequence[tuple[bytes, bytes]] = (),
    chunks: int = 1,
    silence_s: float = 0.0,
    leaves: bool = False,
) -> tuple[int, bytes]:
    """Posts a body, as JSON unless it is bytes; the answer's status and body, 0 if there is none.

    Args:
        application: what is asked.
        body: of the request.
        path: where to.
        headers: of the request, beside content-length.
        chunks: how many pieces the body comes in.
        silence_s: before each.
        leaves: whether the client goes away before the last.
    """
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    size = max(-(-len(raw) // chunks), 1)
    pieces = [raw[n : n + size] for n in range(0, len(raw), size)] or [b""]
    messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages[-1]["more_body"] = False
    if leaves:
        messages.pop()
    messages.append({"type": "http.disconnect"})
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(silence_s)
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-length", str(len(raw)).encode()), *headers],
    }
    await application(scope, receive, send)
    if not sent:
        return 0, b""
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


async def live(application: ASGIApp) -> list[Message]:
    """Starts and stops it; what it said."""
    said: list[Message] = []
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        said.append(message)

    await application({"type": "lifespan"}, receive, send)
    return said
