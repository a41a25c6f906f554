"""Bodies of requests, with a bound on everything."""

import asyncio
import math
from collections.abc import Callable

from starlette.types import Message, Receive

from rankserve.server.gateway.errors import RefusalError


def received_before(receive: Receive, first: Callable[[], Message]) -> Receive:
    """What gives this message, and then those that are still to be received."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return first()

    return receive_again


class ClientGoneError(Exception):
    """The client went away before its request had arrived."""


class Bodies:
    """Reads whole bodies.

    Args:
        max_bytes: of one.
        max_total_bytes: of all that are held at a time.
        timeout_s: for one to arrive.

    Attributes:
        held_bytes: of all bodies that are being read, or were and are held.
    """

    def __init__(self, max_bytes: int, max_total_bytes: int, timeout_s: float) -> None:
        self.held_bytes = 0
        self._max_bytes = max_bytes
        self._max_total_bytes = max_total_bytes
        self._timeout_s = timeout_s

    async def read(self, receive: Receive) -> "HeldBody":
        """Raises RefusalError if it is too large or too slow, and ClientGoneError."""
        arriving = self.arriving(receive)
        content = bytearray()
        try:
            while not arriving.complete:
                chunk = await arriving.chunk()
                content += chunk
                self.held_bytes += len(chunk)
                if self.held_bytes > self._max_total_bytes:
                    raise RefusalError(503, "overloaded", "too much is being read; try again")
            return HeldBody(self, bytes(content))
        finally:
            self.held_bytes -= len(content)

    def arriving(self, receive: Receive, *, any_size: bool = False) -> "ArrivingBody":
        """A body to be read in pieces."""
        return ArrivingBody(receive, math.inf if any_size else self._max_bytes, self._timeout_s)


class ArrivingBody:
    """A body on its way, with a bound on its size, and on the time that is spent waiting for it.

    Attributes:
        complete: whether all of it is there.
    """

    def __init__(self, receive: Receive, max_bytes: float, timeout_s: float) -> None:
        self.complete = False
        self._receive = receive
        self._size = 0
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._left_s = timeout_s

    async def chunk(self) -> bytes:
        """The next piece. Raises RefusalError, and ClientGoneError."""
        message = await self._next()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk: bytes = message.get("body", b"")
        self.complete = not message.get("more_body", False)
        self._size += len(chunk)
        if self._size > self._max_bytes:
            large = f"the body is larger than {self._max_bytes} bytes"
            raise RefusalError(413, "request_too_large", large)
        return chunk

    async def _next(self) -> Message:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            async with asyncio.timeout(self._left_s):
                return await self._receive()
        except TimeoutError:
            slow = f"the body did not arrive within {self._timeout_s:g} s"
            raise RefusalError(408, "body_timeout", slow) from None
        finally:
            self._left_s -= loop.time() - began_s


class HeldBody:
    """A body that was read. It counts as held until it is handed over, or dropped.

    Args:
        bodies: counts it, by the size with which it came.
        content: of the request.

    Attributes:
        content: what to hand over; nothing afterwards.
    """

    def __init__(self, bodies: Bodies, content: bytes) -> None:
        self.content = content
        self._bodies = bodies
        self._counted_bytes = len(content)
        bodies.held_bytes += self._counted_bytes

    def replay(self, receive: Receive) -> Receive:
        """Gives the body in one piece, then whatever comes after it: that the client goes away."""

        def whole() -> Message:
            content = self.content
            self.drop()
            return {"type": "http.request", "body": content, "more_body": False}

        return received_before(receive, whole)

    def drop(self) -> None:
        self._bodies.held_bytes -= self._counted_bytes
        self._counted_bytes = 0
        self.content = b""
