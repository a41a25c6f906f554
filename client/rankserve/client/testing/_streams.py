"""The fake server's open calls: events on their way out, and how a test cuts them."""

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import grpc

from rankserve.v1 import scheduler_pb2

# In place of an event: the call ends, or breaks.
END = None
BREAK = object()


class Outgoing:
    """What one call has yet to send."""

    def __init__(self) -> None:
        self._items: SimpleQueue[Any] = SimpleQueue()

    def put(self, event: scheduler_pb2.RequestEvent) -> None:
        self._items.put(event)

    def end(self) -> None:
        self._items.put(END)

    def break_off(self) -> None:
        self._items.put(BREAK)

    def events(self, context: Any) -> Iterator[scheduler_pb2.RequestEvent]:
        """Until the end. Aborts the call, as a transport does, if it is broken."""
        while (item := self._items.get()) is not END:
            if item is BREAK:
                context.abort(grpc.StatusCode.UNAVAILABLE, "broken on purpose")
            yield item


class OpenStreams:
    """All calls that carry events."""

    def __init__(self) -> None:
        self._open: set[Outgoing] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def open(self, context: Any) -> Outgoing:
        """A new one, forgotten when its call ends."""
        outgoing = Outgoing()
        with self._lock:
            self._open.add(outgoing)

        def forget() -> None:
            with self._lock:
                self._open.discard(outgoing)

        if not context.add_callback(forget):
            forget()
        return outgoing

    def break_all(self) -> None:
        with self._lock:
            for outgoing in self._open:
                outgoing.break_off()
