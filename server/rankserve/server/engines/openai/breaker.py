"""Whether an endpoint is worth a request."""

from collections.abc import Callable
from enum import Enum

# Failures in a row that open it. A connection that is refused opens it at once.
_FAILURES = 3


class Circuit(Enum):
    """Closed: it serves. Open: it does not. Half open: one request may find out whether it serves again."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


class Breaker:
    """Opens after failures, and closes with the first answer that begins after a good health check.

    Requests and health checks are counted apart: who fails all new requests may still be well by its own
    account, and stream an old answer.

    Args:
        on_change: told of each change.
    """

    def __init__(self, on_change: Callable[[Circuit], None]) -> None:
        self.state = Circuit.CLOSED
        self._on_change = on_change
        self._failed = 0
        self._missed = 0

    def began(self) -> None:
        """An answer began."""
        self._failed = self._missed = 0
        self._become(Circuit.CLOSED)

    def lives(self) -> None:
        """An answer went on: it is there, though it may be slow to say how it is."""
        self._missed = 0

    def failed(self, *, for_sure: bool = False) -> None:
        """A request failed; `for_sure` if nobody is there at all."""
        self._failed += 1
        self._open_if(for_sure or self._failed >= _FAILURES)

    def missed(self, *, for_sure: bool = False) -> None:
        """A health check failed; `for_sure` as above."""
        self._missed += 1
        self._open_if(for_sure or self._missed >= _FAILURES)

    def healthy(self) -> None:
        """A health check was answered well."""
        self._missed = 0
        if self.state is Circuit.OPEN:
            self._become(Circuit.HALF_OPEN)

    def _open_if(self, enough: bool) -> None:
        if enough or self.state is Circuit.HALF_OPEN:
            self._become(Circuit.OPEN)

    def _become(self, state: Circuit) -> None:
        if state is not self.state:
            self.state = state
            self._on_change(state)
