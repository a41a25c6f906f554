"""Bodies of requests, with a bound on everything."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Message, Receive

from rankserve.server.gateway.errors import RefusalError


class ClientGoneError(Exception):
    """The client went away before its request had arrived."""


class Bodies:
    """Reads whole bodies.

    Args:
        max_bytes: of one.
        max_total_bytes: of all that are held at a time.
        timeout_s: for one to arrive.
    """

    def __init__(self, max_bytes: int, max_total_bytes: int, timeout_s: float) -> None:
        self.max_bytes = max_bytes
        self._max_total_bytes = max_total_bytes
        self._timeout_s = timeout_s
        self._held_bytes = 0

    async def read(self, receive: Receive) -> bytes:
        """Raises RefusalError if it is too large or too slow, and ClientGoneError."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._read(receive)
        except TimeoutError:
            slow = f"the body did not arrive within {self._timeout_s:g} s"
            raise RefusalError(408, "body_timeout", slow) from None

    @contextmanager
    def holding(self, body: bytes) -> Iterator[None]:
        """A body that was read is held for a while."""
        self._held_bytes += len(body)
        try:
            yield
        finally:
            self._held_bytes -= len(body)

    def too_large(self) -> RefusalError:
        return RefusalError(413, "request_too_large", f"the body is larger than {self.max_bytes} bytes")

    async def _read(self, receive: Receive) -> bytes:
        body = bytearray()
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                chunk = message.get("body", b"")
                body += chunk
                self._held_bytes += len(chunk)
                if len(body) > self.max_bytes:
                    raise self.too_large()
                if self._held_bytes > self._max_total_bytes:
                    raise RefusalError(503, "overloaded", "too much is being read; try again")
                if not message.get("more_body", False):
                    return bytes(body)
        finally:
            self._held_bytes -= len(body)


def replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body in one piece, then whatever comes after it: that the client goes away."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
