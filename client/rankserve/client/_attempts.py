"""One request over several attempts: what its caller sees, and when it is sent again."""

import random

from rankserve.client._config import Retry
from rankserve.client._convert import request_to_proto
from rankserve.client._exceptions import (
    Cancelled,
    ConnectionFailed,
    Draining,
    NotFound,
    RankServeError,
    ResourceExhausted,
    Unavailable,
)
from rankserve.client._types import Accepted, Event, Failed, Finished, Queued, Request, Tokens


def may_send_again(error: RankServeError, retry: Retry) -> bool:
    """Whether a request that ended with this error, before its first token, may be served by another try."""
    if isinstance(error, ResourceExhausted):
        return retry.queue_full and error.reason != "SLOW_CLIENT"
    return isinstance(error, Unavailable)


def cause(error: RankServeError) -> RankServeError:
    """What made a request end: that its server cancelled it for want of a stream is no wish of the caller."""
    if isinstance(error, Cancelled) and error.reason == "STREAM_LOST":
        return ConnectionFailed("the connection was lost, and the server cancelled the request")
    return error


def wait_s(error: RankServeError, attempt: int, retry: Retry) -> float:
    """How long to wait after that many attempts, at least as long as the server asks for."""
    backoff_s = retry.backoff_s(attempt)
    if error.retry_after_s is None:
        return backoff_s
    # Or all that were refused together come back together.
    return max(backoff_s, error.retry_after_s * (1 + random.random() / 4))


class Generation:
    """A request of ``generate``.

    Attributes:
        message: what is sent, the same each time.
        received: tokens so far.
        reattaches: whether the next attempt watches the request instead of sending it.
    """

    def __init__(self, request: Request, retry: Retry) -> None:
        self.request = request
        self.message = request_to_proto(request)
        self.received = 0
        self.reattaches = False
        self._retry = retry
        self._attempts = 0
        self._told: set[type] = set()
        self._lost: RankServeError | None = None

    def take(self, event: Event) -> Event | None:
        """What of it is news to the caller. Raises the error of a Failed event."""
        match event:
            case Failed():
                raise event.error
            case Tokens():
                self.received = event.offset + event.count
            case Accepted() | Queued():
                if type(event) in self._told:
                    return None
                self._told.add(type(event))
            case Finished():
                pass
        return event

    def after(self, error: RankServeError) -> float:
        """How long to wait until the next attempt. Raises the error if there is none."""
        error = cause(error)
        if self.reattaches:
            self.reattaches = False
            if not isinstance(error, NotFound) or self._lost is None:
                raise error
            # The server that held it has forgotten it: it was never served.
            error = self._lost
        elif self.request.detached and Accepted in self._told and isinstance(error, ConnectionFailed):
            self.reattaches = True
            self._lost = error
            return 0.0
        self._attempts += 1
        if self.received or self._attempts >= self._retry.attempts or not may_send_again(error, self._retry):
            raise error
        return wait_s(error, self._attempts, self._retry)


def is_final_for_one_replica(error: RankServeError) -> bool:
    """Whether a request that one replica says this of may live on another."""
    return isinstance(error, NotFound | Draining)
