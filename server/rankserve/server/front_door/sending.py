"""From a request's events to what its client is sent: one JSON object, or server-sent events."""

import asyncio
import json
from collections.abc import Awaitable
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from rankserve.server.errors import InternalFailure, RequestError
from rankserve.server.events import Accepted, EventStream, Failed, Finished, Tokens
from rankserve.server.front_door.errors import to_failure
from rankserve.server.front_door.formats import AnswerFormat, Heading, Json

# In ASCII: clients that split lines as Python does would cut an event at U+2028 or U+0085.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_DONE = b"data: [DONE]\n\n"
# A comment, which clients skip. Proxies give up on connections that are silent for a minute.
_KEEP_ALIVE = b": waiting\n\n"
_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    # nginx would keep events back until it has a buffer full.
    "x-accel-buffering": "no",
}


@dataclass(slots=True, frozen=True)
class Asked:
    """How a client wants to be told.

    Attributes:
        request_id: of the request.
        model: the name it is to be told.
        format: of the answer.
        include_usage: whether a stream ends with a chunk of usage.
    """

    request_id: str
    model: str
    format: AnswerFormat
    include_usage: bool

    def heading(self, created: float) -> Heading:
        return Heading(self.format.prefix + self.request_id, int(created), self.model)


async def send_whole(stream: EventStream, asked: Asked, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers once the request has ended. Raises RequestError if it failed."""
    while events := await stream.take():
        for event in events:
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Finished):
                body = asked.format.whole(asked.heading(event.timing.accept_time), event)
                headers = {"x-request-id": asked.request_id, **_about(event)}
                await JSONResponse(body, headers=headers)(scope, receive, send)
                return
    raise stream.error or InternalFailure()


def _about(finished: Finished) -> dict[str, str]:
    """For operators: how the request was ordered."""
    return {
        "x-rankserve-score": f"{finished.score:g}",
        "x-rankserve-ranker-version": finished.ranker_version,
        "x-rankserve-queue-ms": f"{finished.timing.scheduled_s * 1000:.0f}",
    }


class StreamedAnswer:
    """Tells a client of its request as it goes.

    The response begins with the first text, or after `keep_alive_s`: what fails before has a status of its
    own, by which clients know whether to try again.

    Args:
        stream: of the one request.
        asked: how its client wants to be told.
        send: of the ASGI application.
        flush_interval_s: pause between two messages, in which tokens merge.
        keep_alive_s: longest silence.
    """

    def __init__(
        self,
        stream: EventStream,
        asked: Asked,
        send: Send,
        *,
        flush_interval_s: float,
        keep_alive_s: float,
    ) -> None:
        self._stream = stream
        self._asked = asked
        self._format = asked.format
        self._send = send
        self._flush_interval_s = flush_interval_s
        self._keep_alive_s = keep_alive_s
        self._heading = asked.heading(0.0)
        self._begun = False
        self._opened = False

    async def run(self) -> None:
        """Returns when all was sent. Raises RequestError if the request failed before anything was."""
        while True:
            try:
                async with asyncio.timeout(self._keep_alive_s):
                    events = await self._stream.take()
            except TimeoutError:
                await self._write(_KEEP_ALIVE)
                continue
            text: list[bytes] = []
            for event in events:
                if isinstance(event, Accepted):
                    self._heading = self._asked.heading(event.accept_time)
                elif isinstance(event, Tokens):
                    text += self._piece(event.text)
                elif isinstance(event, Finished):
                    await self._write(b"".join(text + self._last(event)), more=False)
                    return
                elif isinstance(event, Failed):
                    await self._fail(event.error, b"".join(text))
                    return
            if not events:
                await self._fail(self._stream.error or InternalFailure(), b"")
                return
            if text:
                await self._write(b"".join(text))
                await asyncio.sleep(self._flush_interval_s)

    def _piece(self, text: str) -> list[bytes]:
        chunks = [] if self._opened else self._format.opening(self._heading)
        self._opened = True
        if text:
            chunks.append(self._format.piece(self._heading, text))
        return [self._event(chunk) for chunk in chunks]

    def _last(self, finished: Finished) -> list[bytes]:
        chunks = self._piece(finished.text)
        chunks.append(self._event(self._format.last(self._heading, finished.finish_reason)))
        if self._asked.include_usage:
            chunks.append(_event(self._format.usage(self._heading, finished)))
        return [*chunks, _DONE]

    async def _fail(self, error: RequestError, text: bytes) -> None:
        """Without [DONE]: what was sent is not the whole answer."""
        if not self._begun and not text:
            raise error
        await self._write(text + _event(to_failure(error).body), more=False)

    def _event(self, chunk: Json) -> bytes:
        return _event(chunk | {"usage": None} if self._asked.include_usage else chunk)

    async def _write(self, body: bytes, *, more: bool = True) -> None:
        if not self._begun:
            self._begun = True
            start: Message = {"type": "http.response.start", "status": 200, "headers": []}
            headers = MutableHeaders(scope=start)
            headers.update({**_STREAM_HEADERS, "x-request-id": self._asked.request_id})
            await self._send(start)
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _event(body: Json) -> bytes:
    return b"data: " + _encode(body).encode("ascii") + b"\n\n"


async def unless_disconnected(receive: Receive, work: Awaitable[None]) -> None:
    """Does the work, or drops it when the client is gone. Nothing more may be received meanwhile."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.wait({working, gone})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
