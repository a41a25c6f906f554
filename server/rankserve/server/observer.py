"""Who is told what happens to requests, for metrics and traces: a call for each event, none for tokens."""

from collections.abc import Sequence
from typing import Protocol

from rankserve.server.errors import RequestError
from rankserve.server.requests import LiveRequest


class Observer(Protocol):
    """Is called on the event loop; must neither raise nor block."""

    def accepted(self, live: LiveRequest) -> None:
        """A request was accepted, or taken over from the journal."""
        ...

    def refused(self, error: RequestError) -> None:
        """A request was refused at the door."""
        ...

    def scored(self, live: LiveRequest, duration_s: float) -> None:
        """A request was scored, or got the neutral score, so long after it arrived at the ranker."""
        ...

    def started(self, live: LiveRequest) -> None:
        """A request starts, for the first time or again after a preemption."""
        ...

    def ended(self, live: LiveRequest) -> None:
        """A request ended; `live.outcome` says how."""
        ...


class Observers:
    """Several as one."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._observers = observers

    def accepted(self, live: LiveRequest) -> None:
        for observer in self._observers:
            observer.accepted(live)

    def refused(self, error: RequestError) -> None:
        for observer in self._observers:
            observer.refused(error)

    def scored(self, live: LiveRequest, duration_s: float) -> None:
        for observer in self._observers:
            observer.scored(live, duration_s)

    def started(self, live: LiveRequest) -> None:
        for observer in self._observers:
            observer.started(live)

    def ended(self, live: LiveRequest) -> None:
        for observer in self._observers:
            observer.ended(live)
