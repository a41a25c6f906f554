"""Warnings that cannot flood the log when every request meets the same failure."""

from collections.abc import Callable

import structlog

PERIOD_S = 60.0

log = structlog.get_logger(__name__)


class ThrottledLog:
    """Logs each kind of warning at most once a minute, with how many were held back before it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next_at: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def warning(self, event: str, *, kind: str, **fields: object) -> None:
        now = self._clock()
        if now < self._next_at.get(kind, now):
            self._held_back[kind] = self._held_back.get(kind, 0) + 1
            return
        self._next_at[kind] = now + PERIOD_S
        log.warning(event, kind=kind, held_back=self._held_back.pop(kind, 0), **fields)
