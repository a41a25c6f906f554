"""One Submit stream of a load run: a queue in front of it, so that a slow reader never slows the sender."""

import asyncio
from collections.abc import Callable

from rankserve.client._exceptions import InternalError, InvalidRequest, RankServeError
from rankserve.client._resilient import AsyncResilientSubmitStream
from rankserve.client._stream import AsyncSubmitStream
from rankserve.client._types import Event, Request

Stream = AsyncSubmitStream | AsyncResilientSubmitStream
OnEvent = Callable[[Event], None]
OnFailure = Callable[[str, RankServeError], None]


class Lane:
    """Sends requests over one stream, reports their events, and ends them all if the stream breaks.

    Args:
        stream: entered by the caller.
        on_event: told of each event.
        on_failure: told of each request that the stream could not carry to its end; also of one that has
            ended already.
    """

    def __init__(self, stream: Stream, on_event: OnEvent, on_failure: OnFailure) -> None:
        self._stream = stream
        self._on_event = on_event
        self._on_failure = on_failure
        self._outgoing: asyncio.Queue[Request | None] = asyncio.Queue()
        self._handed_over: list[str] = []
        self._broken: RankServeError | None = None

    def send(self, request: Request) -> None:
        """Takes a request without waiting."""
        self._handed_over.append(request.id)
        if self._broken is not None:
            self._on_failure(request.id, self._broken)
        else:
            self._outgoing.put_nowait(request)

    def done_sending(self) -> None:
        """No more requests come."""
        self._outgoing.put_nowait(None)

    async def write(self) -> None:
        """Puts what was taken on the stream, until ``done_sending`` or the stream breaks."""
        try:
            while (request := await self._outgoing.get()) is not None:
                try:
                    await self._stream.send(request)
                except InvalidRequest as error:
                    self._on_failure(request.id, error)
            await self._stream.done_sending()
        except RankServeError as error:
            self._break(error)

    async def read(self) -> None:
        """Reports events until the stream ends."""
        try:
            async for event in self._stream:
                self._on_event(event)
        except RankServeError as error:
            self._break(error)
        else:
            self._break(InternalError("the server ended the stream before the request had ended"))

    def _break(self, error: RankServeError) -> None:
        self._broken = self._broken or error
        for request_id in self._handed_over:
            self._on_failure(request_id, self._broken)
