"""Looks at the server once a second, and shows what it saw to whoever watches."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import structlog

from rankserve.server.access.principal import Principal
from rankserve.server.operations.live_view import LiveView

log = structlog.get_logger(__name__)

_ROWS = ("queue", "batch")


class TooManyWatchersError(Exception):
    """As many watch already as may."""


class LiveFeed:
    """One look a second, however many watch; a slow watcher skips looks.

    Args:
        view: what is looked at.
        interval_s: time from one look to the next.
        most_watchers: streams at once.
    """

    def __init__(self, view: LiveView, *, interval_s: float = 1.0, most_watchers: int = 32) -> None:
        self._view = view
        self._interval_s = interval_s
        self._most_watchers = most_watchers
        self._watchers = 0
        self._snapshot: dict[str, Any] | None = None
        self._texts: dict[Principal | None, str] = {}
        self._looked = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._look())

    async def aclose(self) -> None:
        """Ends every stream."""
        self._closed = True
        self._looked.set()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def current(self, principal: Principal) -> dict[str, Any]:
        """What there is to see for this caller, the last minutes included."""
        return {**_for(principal, self._current()), "history": self._view.history()}

    def join(self) -> None:
        """Counts one more watcher; `leave` must follow. Raises TooManyWatchersError."""
        if self._watchers >= self._most_watchers:
            raise TooManyWatchersError
        self._watchers += 1

    def leave(self) -> None:
        self._watchers -= 1

    async def watch(self, principal: Principal) -> AsyncIterator[str]:
        """Server-sent events: one with the last minutes, then one a look."""
        yield _event(to_json(self.current(principal)))
        while True:
            looked = self._looked
            await looked.wait()
            if self._closed:
                return
            yield _event(self._text(principal))

    def _current(self) -> dict[str, Any]:
        """Made at most once a look, and only if somebody wants it."""
        if self._snapshot is None:
            self._snapshot = self._view.snapshot()
        return self._snapshot

    def _text(self, principal: Principal) -> str:
        key = None if principal.tenants is None else principal
        if key not in self._texts:
            self._texts[key] = to_json(_for(principal, self._current()))
        return self._texts[key]

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                self._view.sample()
            except Exception:
                # The page goes blind; requests are served all the same.
                log.exception("live_view_failed")
                continue
            self._snapshot = None
            self._texts.clear()
            looked, self._looked = self._looked, asyncio.Event()
            looked.set()


def to_json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _event(text: str) -> str:
    return f"data: {text}\n\n"


def _for(principal: Principal, snapshot: dict[str, Any]) -> dict[str, Any]:
    """Without the requests of tenants that are not the caller's to see."""
    if principal.tenants is None:
        return snapshot
    rows = {key: [row for row in snapshot[key] if principal.may_see(row["tenant"])] for key in _ROWS}
    return {**snapshot, **rows}
