"""What the server does with requests as a whole, and who is told when that changes."""

from collections.abc import Callable
from enum import Enum

import structlog

from rankserve.server.dispatcher import Dispatcher
from rankserve.server.errors import EngineFailed, ServerDraining

log = structlog.get_logger(__name__)


class State(Enum):
    SERVING = "serving"
    # Requests are accepted and wait; none is started.
    PAUSED = "paused"
    # None is accepted; those that were are served.
    DRAINING = "draining"
    # None is accepted, since they could not be served or recorded.
    FAILED = "failed"


class Lifecycle:
    """Serving, paused, draining or failed.

    Args:
        dispatcher: whom to stop and start.
        on_change: called with the state when it changes.
    """

    def __init__(self, dispatcher: Dispatcher, on_change: Callable[[State], None]) -> None:
        self._dispatcher = dispatcher
        self._on_change = on_change
        self._last = State.SERVING
        self.stopping = False

    @property
    def state(self) -> State:
        dispatcher = self._dispatcher
        if dispatcher.journal.failure or dispatcher.closed is EngineFailed:
            return State.FAILED
        if self.stopping or dispatcher.closed is ServerDraining:
            return State.DRAINING
        return State.PAUSED if dispatcher.paused else State.SERVING

    @property
    def detail(self) -> str:
        """What there is to say about the state, for people."""
        if self._dispatcher.closed is EngineFailed:
            return "the engine failed; the log says why"
        return self._dispatcher.journal.failure

    def drain(self) -> None:
        """Accepts nothing more and serves what there is."""
        if self._dispatcher.closed is None:
            self._dispatcher.closed = ServerDraining
        self.changed()

    def pause(self) -> None:
        """Starts nothing more."""
        self._dispatcher.paused = True
        self.changed()

    def resume(self) -> None:
        """Ends `drain` and `pause`, unless the process is about to end."""
        if self._dispatcher.closed is ServerDraining and not self.stopping:
            self._dispatcher.closed = None
        self._dispatcher.paused = False
        self._dispatcher.engine.wake()
        self.changed()

    def changed(self) -> None:
        """Call it when something happened that may have changed the state."""
        state = self.state
        if state is not self._last:
            log.info("state_changed", state=state.value, before=self._last.value, detail=self.detail)
            self._last = state
            self._on_change(state)
        if state is not State.FAILED:
            # Those that waited for the journal may start.
            self._dispatcher.engine.wake()
