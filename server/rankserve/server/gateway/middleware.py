"""Scores requests on their way to whatever answers them, and writes the result into their bodies."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from rankserve.records.ranker_version import RankerVersionError
from rankserve.server.gateway.bodies import Bodies, ClientGoneError, HeldBody, received_before
from rankserve.server.gateway.errors import RefusalError
from rankserve.server.gateway.json_bodies import Fields, json_object, with_fields
from rankserve.server.gateway.prompts import Reader, find_reader
from rankserve.server.gateway.scorer import PromptScorer
from rankserve.server.ranking.ranker import PromptScore

Headers = Sequence[tuple[bytes, bytes]]
# vLLM lets it go before what the body says.
PRIORITY_HEADER = b"x-vllm-priority"
# In a scope: its body was read already, within the bounds on bodies.
BODY_WAS_READ = "rankserve.body_was_read"


class Marker(ABC):
    """Writes an order into a request.

    Args:
        trust_clients: whether what clients say of their own order counts.
    """

    def __init__(self, *, trust_clients: bool) -> None:
        self.trust_clients = trust_clients

    @abstractmethod
    def needs_score(self, body: dict[str, Any]) -> bool:
        """Whether there is any use in scoring it."""

    @abstractmethod
    def mark(
        self, body: dict[str, Any], headers: Headers, score: PromptScore | None
    ) -> tuple[Fields, Headers]:
        """What to set in the body, and the headers to go on with."""

    def unmarked(self, headers: Headers) -> Headers:
        """Those of a request that is not ordered, without what its client may not say."""
        return headers if self.trust_clients else without(headers, PRIORITY_HEADER)


class ScoringMiddleware:
    """ASGI middleware. Requests that are not ordered, or whose body is no object, keep the body as it came.

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
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        reader = find_reader(scope["method"], scope["path"])
        if reader is None:
            scope = {**scope, "headers": list(self._marker.unmarked(scope["headers"]))}
            await self._application(scope, receive, send)
            return
        try:
            held = await self._read(scope, receive)
        except RefusalError as refusal:
            await refusal.send(send)
            return
        except ClientGoneError:
            return
        try:
            headers = await self._mark(held, reader, scope["headers"])
            length = str(len(held.content)).encode()
            headers = [
                *without(headers, b"content-length", b"transfer-encoding"),
                (b"content-length", length),
            ]
            scope = {**scope, "headers": headers, BODY_WAS_READ: True}
            await self._application(scope, held.replay(receive), send)
        except RefusalError as refusal:
            await refusal.send(send)
        finally:
            held.drop()

    async def _read(self, scope: Scope, receive: Receive) -> HeldBody:
        encodings = (value for name, value in scope["headers"] if name.lower() == b"content-encoding")
        if next(encodings, b"identity").lower() != b"identity":
            raise RefusalError(415, "unsupported_encoding", "send the body without content-encoding")
        return await self._bodies.read(receive)

    async def _mark(self, held: HeldBody, reader: Reader, headers: Headers) -> Headers:
        """Writes the order into a body; the headers to go on with."""
        body = json_object(held.content)
        if body is None:
            return self._marker.unmarked(headers)
        score = await self._scorer.score(reader(body)) if self._marker.needs_score(body) else None
        fields, headers = self._marker.mark(body, headers, score)
        held.content = with_fields(held.content, body, fields)
        return headers

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Loads the ranker before the application starts, which does not start without."""
        first = await receive()
        try:
            await self._scorer.start()
        except (RankerVersionError, OSError) as error:
            await send({"type": "lifespan.startup.failed", "message": f"rankserve: {error}"})
            return
        try:
            await self._application(scope, received_before(receive, lambda: first), send)
        finally:
            await self._scorer.aclose()


def without(headers: Headers, *names: bytes) -> Headers:
    return [(name, value) for name, value in headers if name.lower() not in names]
