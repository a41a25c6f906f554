"""Scores requests on their way to whatever answers them, and writes the result into their bodies."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankserve.records.ranker_version import RankerVersionError
from rankserve.server.gateway.bodies import Bodies, ClientGoneError, replay
from rankserve.server.gateway.errors import RefusalError
from rankserve.server.gateway.prompts import find_reader
from rankserve.server.gateway.scorer import PromptScorer
from rankserve.server.ranking.ranker import PromptScore

Headers = Sequence[tuple[bytes, bytes]]


class Marker(ABC):
    """Writes an order into a request."""

    @abstractmethod
    def needs_score(self, body: dict[str, Any]) -> bool:
        """Whether there is any use in scoring it."""

    @abstractmethod
    def mark(self, body: dict[str, Any], headers: Headers, score: PromptScore | None) -> Headers:
        """Changes the body in place; returns the headers to go on with."""


class ScoringMiddleware:
    """ASGI middleware. Requests that are not ordered, or that cannot be read, go on as they came.

    Args:
        application: what answers.
        scorer: scores prompts.
        marker: writes the result into the request.
        bodies: reads requests.
    """

    def __init__(self, application: ASGIApp, scorer: PromptScorer, marker: Marker, bodies: Bodies) -> None:
        self._application = application
        self._scorer = scorer
        self._marker = marker
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        reader = find_reader(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if reader is None:
            await self._application(scope, receive, send)
            return
        headers: Headers = scope["headers"]
        try:
            if _value(headers, b"content-encoding", b"identity").lower() != b"identity":
                raise RefusalError(415, "unsupported_encoding", "send the body without content-encoding")
            raw = await self._bodies.read(receive)
        except RefusalError as refusal:
            await refusal.send(send)
            return
        except ClientGoneError:
            return
        with self._bodies.holding(raw):
            body = _json_object(raw)
            if body is not None:
                score = None
                if self._marker.needs_score(body):
                    score = await self._scorer.score(reader(body))
                headers = self._marker.mark(body, headers, score)
                raw = json.dumps(body).encode()
        dropped = (b"content-length", b"transfer-encoding")
        headers = [(name, value) for name, value in headers if name.lower() not in dropped]
        headers.append((b"content-length", str(len(raw)).encode()))
        await self._application({**scope, "headers": headers}, replay(raw, receive), send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Loads the ranker before the application starts, which does not start without."""
        first = await receive()
        try:
            await self._scorer.start()
        except (RankerVersionError, OSError) as error:
            await send({"type": "lifespan.startup.failed", "message": f"rankserve: {error}"})
            return
        given = False

        async def receive_again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return first

        try:
            await self._application(scope, receive_again, send)
        finally:
            await self._scorer.aclose()


def _value(headers: Headers, wanted: bytes, default: bytes) -> bytes:
    return next((value for name, value in headers if name.lower() == wanted), default)


def _json_object(raw: bytes) -> dict[str, Any] | None:
    """As Python reads it, which is how engines in Python do; None if it is no object."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None
