"""What clients are told about their requests, and the stream it goes through."""

import asyncio
from dataclasses import dataclass, field

from rankserve.server.errors import RequestError

# One message carries at most this many events and about this many bytes: well under gRPC's 4 MiB.
_MAX_EVENTS = 512
_MAX_MESSAGE_BYTES = 1 << 20
# Of everything in an event that has no length of its own to measure: numbers, names, timing, error details.
_EVENT_BYTES = 512
# A client that submits without reading gets no further once this many events wait for it.
_MAX_PENDING = 16_384

_MAX_REFUSED_ID = 128


@dataclass(slots=True, frozen=True)
class Accepted:
    request_id: str
    accept_time: float


@dataclass(slots=True, frozen=True)
class Queued:
    request_id: str
    score: float
    ranker_version: str
    place: int
    estimated_wait_s: float | None


@dataclass(slots=True)
class Tokens:
    """New tokens; grows for as long as it waits to be sent."""

    request_id: str
    offset: int
    count: int
    text: str


@dataclass(slots=True, frozen=True)
class Timing:
    """Seconds after acceptance, on the server's wall clock. `accept_time` is Unix time."""

    accept_time: float
    queued_s: float
    scheduled_s: float
    first_token_s: float
    last_token_s: float
    max_token_gap_s: float
    time_scale: float


@dataclass(slots=True, frozen=True)
class Finished:
    request_id: str
    finish_reason: str
    input_tokens: int
    output_tokens: int
    text: str
    score: float
    ranker_version: str
    policy: str
    preemptions: int
    promoted: bool
    timing: Timing
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class Failed:
    request_id: str
    error: RequestError
    output_tokens: int = 0


Event = Accepted | Queued | Tokens | Finished | Failed


class EventStream:
    """Events on their way to one client. A slow client makes token events grow, not multiply.

    Args:
        owns: whether requests are cancelled when the last stream that owns them is lost.
        max_pending: events that may wait before `room` makes the submitter wait.
    """

    def __init__(self, *, owns: bool = True, max_pending: int = _MAX_PENDING) -> None:
        self.owns = owns
        self.error: RequestError | None = None
        self.open_requests: set[str] = set()
        self._max_pending = max_pending
        self._pending: list[Event] = []
        self._growing: dict[str, Tokens] = {}
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._complete = False
        self._broken = False

    def put(self, event: Accepted | Queued | Finished | Failed) -> None:
        self._growing.pop(event.request_id, None)
        self._pending.append(event)
        if isinstance(event, Finished | Failed):
            self.open_requests.discard(event.request_id)
        self._ready.set()

    def refuse(self, request_id: str, error: RequestError) -> None:
        """Tells of a request that was not accepted. One that was may have the same id, and goes on."""
        self._growing.pop(request_id, None)
        # The id was not checked, and may be of any length.
        self._pending.append(Failed(request_id[:_MAX_REFUSED_ID], error))
        self._ready.set()

    def put_tokens(self, request_id: str, offset: int, count: int, text: str) -> None:
        growing = self._growing.get(request_id)
        if growing is None:
            growing = self._growing[request_id] = Tokens(request_id, offset, count, text)
            self._pending.append(growing)
            self._ready.set()
        else:
            growing.count += count
            growing.text += text

    def complete(self) -> None:
        """No further request will join; the stream ends with the terminal event of its last one."""
        self._complete = True
        self._ready.set()

    def break_off(self) -> None:
        """The client can be told nothing more; the stream ends at once."""
        self._broken = True
        self._pending.clear()
        self._ready.set()

    def leave(self, request_id: str, error: RequestError) -> None:
        """No more is told of a request that goes on; once all others have ended, so does the stream."""
        self._growing.pop(request_id, None)
        self.open_requests.discard(request_id)
        self.error = error
        self._ready.set()

    @property
    def fills_a_message(self) -> bool:
        """Whether what waits is enough for one: nothing is gained by waiting for more."""
        return len(self._pending) >= _MAX_EVENTS

    async def room(self) -> None:
        """Waits while the client is far behind in reading its events."""
        while len(self._pending) >= self._max_pending:
            self._room.clear()
            await self._room.wait()

    async def take(self) -> list[Event]:
        """The next events, at least one; an empty list once the stream has ended."""
        while not self._pending and not self._broken:
            if not self.open_requests and (self._complete or self.error is not None):
                return []
            self._ready.clear()
            await self._ready.wait()
        if self._broken:
            return []
        taken = 0
        size = 0
        for event in self._pending:
            size += _size(event)
            if taken and (taken >= _MAX_EVENTS or size > _MAX_MESSAGE_BYTES):
                break
            taken += 1
            if isinstance(event, Tokens) and self._growing.get(event.request_id) is event:
                del self._growing[event.request_id]
        events, self._pending = self._pending[:taken], self._pending[taken:]
        self._room.set()
        return events


def _size(event: Event) -> int:
    """About how many bytes of a message it takes."""
    size = _EVENT_BYTES + _bytes(event.request_id)
    if isinstance(event, Tokens | Finished):
        size += _bytes(event.text)
    if isinstance(event, Finished) and event.metadata:
        size += sum(_bytes(key) + _bytes(value) for key, value in event.metadata.items())
    return size


def _bytes(text: str) -> int:
    """At most how many bytes it takes in UTF-8."""
    return len(text) if text.isascii() else 4 * len(text)
