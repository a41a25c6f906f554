"""What a resilient stream owes its caller: one terminal event for each request, and no token twice."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rankserve.client._attempts import cause, may_send_again, wait_s
from rankserve.client._config import Retry
from rankserve.client._exceptions import (
    ConnectionFailed,
    Draining,
    NotFound,
    RankServeError,
    ResourceExhausted,
)
from rankserve.client._types import Accepted, Event, Failed, Finished, Queued, Request, Tokens


@dataclass(slots=True)
class Sending:
    """A request that has not ended. ``link`` is the number of the connection that carries it now."""

    request: Request
    link: int = 0
    attempts: int = 0
    received: int = 0
    told: set[type] = field(default_factory=set)


@dataclass(slots=True)
class Outcome:
    """What to do about what came in on a link.

    Attributes:
        events: for the caller.
        again: requests to send again.
        delay_s: how long to wait before.
        watch: detached requests to follow from an offset, as their server may go on with them.
        leaving: whether the link's server takes no more requests.
    """

    events: list[Event] = field(default_factory=list)
    again: list[Request] = field(default_factory=list)
    delay_s: float = 0.0
    watch: dict[str, int] = field(default_factory=dict)
    leaving: bool = False


class Ledger:
    """Every request from ``send`` to its terminal event."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._open: dict[str, Sending] = {}

    @property
    def empty(self) -> bool:
        return not self._open

    def add(self, requests: Sequence[Request]) -> None:
        """Takes on all of them, or raises ValueError for an id that is under way."""
        added = {request.id: Sending(request) for request in requests}
        twice = [request_id for request_id in added if request_id in self._open]
        if twice or len(added) < len(requests):
            which = f"request {twice[0]!r} is" if twice else "two of the requests are the same and"
            raise ValueError(f"{which} under way on this stream already")
        self._open.update(added)

    def carry(self, link: int, request_ids: Iterable[str]) -> None:
        """These are about to be sent on this link."""
        for request_id in request_ids:
            self._open[request_id].link = link
            self._open[request_id].attempts += 1

    def follow(self, link: int, request_ids: Iterable[str]) -> None:
        """These are about to be watched on this link."""
        for request_id in request_ids:
            self._open[request_id].link = link

    def take(self, link: int, events: Iterable[Event]) -> Outcome:
        """Events that came in on a link. Those of requests that went to another link since are dropped."""
        outcome = Outcome()
        for event in events:
            sending = self._open.get(event.request_id)
            outcome.leaving |= isinstance(event, Failed) and isinstance(event.error, Draining)
            if sending is None or sending.link != link:
                continue
            match event:
                case Failed():
                    self._fail(sending, event, outcome)
                    continue
                case Finished():
                    del self._open[event.request_id]
                case Tokens():
                    sending.received = event.offset + event.count
                case Accepted() | Queued():
                    if type(event) in sending.told:
                        continue
                    sending.told.add(type(event))
            outcome.events.append(event)
        return outcome

    def lose(self, link: int, error: RankServeError) -> Outcome:
        """The link broke: each request on it is sent again, watched, or failed."""
        outcome = Outcome(leaving=True)
        for sending in [sending for sending in self._open.values() if sending.link == link]:
            request_id = sending.request.id
            if sending.request.detached and Accepted in sending.told and isinstance(error, ConnectionFailed):
                outcome.watch[request_id] = sending.received
            else:
                self._fail(sending, Failed(request_id, error, sending.received), outcome)
        return outcome

    def lose_watch(self, link: int, error: RankServeError) -> Outcome:
        """Nobody knows what became of the requests that were watched."""
        outcome = Outcome()
        for sending in [sending for sending in self._open.values() if sending.link == link]:
            del self._open[sending.request.id]
            outcome.events.append(Failed(sending.request.id, error, sending.received))
        return outcome

    def _fail(self, sending: Sending, event: Failed, outcome: Outcome) -> None:
        error = cause(event.error)
        if sending.request.detached and Accepted in sending.told and isinstance(error, NotFound):
            # Its server came back without it: it was never served.
            error = ConnectionFailed("the server that had accepted the request has lost it")
        again = not sending.received and sending.attempts < self._retry.attempts
        if again and may_send_again(error, self._retry):
            outcome.again.append(sending.request)
            # A full server may have room by then; any other would say the same again.
            outcome.leaving |= not isinstance(error, ResourceExhausted)
            outcome.delay_s = max(outcome.delay_s, wait_s(error, sending.attempts, self._retry))
            # Nothing that still comes from there concerns it.
            sending.link = 0
        else:
            del self._open[event.request_id]
            outcome.events.append(Failed(event.request_id, error, event.output_tokens))
