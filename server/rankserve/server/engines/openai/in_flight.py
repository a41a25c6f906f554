"""How many requests an endpoint is given at a time, learned from what it makes of them.

Fewer than its batch holds leave it idle; more wait in its own queue, where our order does not reach.
"""

import math
from dataclasses import dataclass

_FIRST_LIMIT = 8.0
_MOST = 4096.0
# Requests that may wait in the engine's queue, so that a slot that becomes free is taken at once.
_HEADROOM = 1
# A first token that took so many times the usual is taken for one that waited.
_SLOW = 3.0
# Weight of the latest time to the first token in the usual one.
_MEMORY = 0.1
_DECREASE = 0.8


@dataclass(slots=True, frozen=True)
class Load:
    """What an endpoint says of itself.

    Attributes:
        running, waiting: requests in its batch and behind it, whoever sent them.
        kv_use: part of its KV cache in use, 0 to 1; 0 if it does not say.
    """

    running: int
    waiting: int
    kv_use: float = 0.0


class InFlightLimit:
    """The most requests in flight. Given, or learned: from its load, or from times to the first token.

    Args:
        given: by the operator; None to learn it.
    """

    def __init__(self, given: int | None = None) -> None:
        self._given = given
        self._limit = _FIRST_LIMIT
        self._had_waiting = False
        self._usual_s = math.inf

    @property
    def value(self) -> int:
        return int(self._limit) if self._given is None else self._given

    def loaded(self, load: Load, in_flight: int) -> None:
        """The endpoint told its load while so many of ours were in flight."""
        if load.waiting == 0:
            self._had_waiting = False
            if in_flight >= self.value:
                self._set(self._limit * 1.25 + 1)
        elif load.waiting > _HEADROOM:
            # A burst waits for a moment in any case: for the step that takes it in.
            if self._had_waiting:
                self._set(min(self._limit, in_flight) - (load.waiting - _HEADROOM))
            self._had_waiting = True

    def first_token(self, after_s: float, in_flight: int) -> None:
        """A first token came, from an endpoint that does not tell its load."""
        if after_s > _SLOW * self._usual_s:
            self._set(max(in_flight, 1) * _DECREASE)
            # What is slow for long is the usual.
            self._usual_s *= 1 + _MEMORY
            return
        if self._usual_s == math.inf:
            self._usual_s = after_s
        self._usual_s += _MEMORY * (after_s - self._usual_s)
        if in_flight >= self.value:
            self._set(self._limit + 1 / max(1.0, self._limit) ** 0.5)

    def busy(self, in_flight: int) -> None:
        """The endpoint refused a request since it has too many."""
        self._set(max(in_flight, 1) * _DECREASE)

    def _set(self, limit: float) -> None:
        self._limit = min(max(1.0, limit), _MOST)
