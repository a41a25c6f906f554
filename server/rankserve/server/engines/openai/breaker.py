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
    """Opens after failures, and closes with the first success that follows a good health check.

    Args:
        on_change: told of each change.
    """

    def __init__(self, on_change: Callable[[Circuit], None]) -> None:
        self.state = Circuit.CLOSED
        self._on_change = on_change
        self._failures = 0

    def succeeded(self) -> None:
        """An answer came to its end, or at least began."""
        self._failures = 0
        self._become(Circuit.CLOSED)

    def failed(self, *, for_sure: bool = False) -> None:
        """A request or a health check failed; `for_sure` if nobody is there at all."""
        self._failures += 1
        if for_sure or self._failures >= _FAILURES or self.state is Circuit.HALF_OPEN:
            self._become(Circuit.OPEN)

    def healthy(self) -> None:
        """A health check was answered well."""
        if self.state is Circuit.OPEN:
            self._become(Circuit.HALF_OPEN)

    def _become(self, state: Circuit) -> None:
        if state is not self.state:
            self.state = state
            self._on_change(state)
