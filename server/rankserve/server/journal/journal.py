"""Recording what happens to requests before anybody is told of it."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import structlog

from rankserve.server.journal.codec import encode_outcome
from rankserve.server.journal.store import Batch, JournalStore
from rankserve.server.requests import LiveRequest
from rankserve.server.slices import in_slices

log = structlog.get_logger(__name__)

_RETRY_S = 0.5

Act = Callable[[], None]


class Journal(Protocol):
    """Takes records in order, and acts once all records before are durable.

    Attributes:
        failure: why nothing can be recorded at the moment; "" if it can.
        keeps: whether what is recorded outlives the process.
    """

    failure: str
    keeps: bool

    def accepted(self, live: LiveRequest) -> None: ...

    def produced(self, live: LiveRequest, first: int, count: int, text: str) -> None: ...

    def ended(self, live: LiveRequest) -> None: ...

    def forgotten(self, live: LiveRequest) -> None: ...

    def then(self, act: Act) -> None:
        """Acts once everything recorded so far is durable, in the order of the calls."""
        ...


class NoJournal:
    """Nothing is recorded, so nobody waits for it."""

    failure = ""
    keeps = False

    def accepted(self, live: LiveRequest) -> None: ...

    def produced(self, live: LiveRequest, first: int, count: int, text: str) -> None: ...

    def ended(self, live: LiveRequest) -> None: ...

    def forgotten(self, live: LiveRequest) -> None: ...

    def then(self, act: Act) -> None:
        act()


class SqliteJournal:
    """Group commit: all that gathers while one transaction is written goes into the next.

    When writing fails, on a full disk say, what gathers is kept and tried again twice a second, and nobody
    is told anything meanwhile.

    Args:
        store: the open file; the journal closes it.
        on_change: called when `failure` changes.
    """

    def __init__(self, store: JournalStore, on_change: Callable[[], None]) -> None:
        self.failure = ""
        self.keeps = True
        self._store = store
        self._on_change = on_change
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._batch = Batch()
        self._acts: list[Act] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="journal")

    def accepted(self, live: LiveRequest) -> None:
        self._batch.accepted.append((live.number, live.spec.id, live.accept_time, live.spec.body))

    def produced(self, live: LiveRequest, first: int, count: int, text: str) -> None:
        self._batch.add_tokens(live.number, first, count, text)

    def ended(self, live: LiveRequest) -> None:
        """Call it once the answer is closed."""
        if live.outcome is None:
            raise RuntimeError(f"request {live.spec.id} has not ended")
        # The whole text of a request that wanted only the result is in its outcome.
        text, boundaries = "", b""
        if not live.spec.result_only:
            text, boundaries = live.answer.whole(), live.answer.boundaries()
        self._batch.ended.append((live.number, live.end_time, encode_outcome(live.outcome), text, boundaries))
        self._wake.set()

    def forgotten(self, live: LiveRequest) -> None:
        self._batch.forgotten.append(live.number)
        self._wake.set()

    def then(self, act: Act) -> None:
        self._acts.append(act)
        self._wake.set()

    async def aclose(self) -> None:
        """Writes what is left, once, and closes the file."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._batch = self._batch, Batch()
            acts, self._acts = self._acts, []
            if not await self._write(batch):
                return
            async for some in in_slices(acts):
                for act in some:
                    try:
                        act()
                    except Exception:
                        # Of one request; the others must not wait forever for it.
                        log.exception("journal_act_failed")
            if self._closing and not self._wake.is_set():
                return

    async def _write(self, batch: Batch) -> bool:
        """Returns whether it was written; False only when the server ends and it cannot be."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(self._thread, self._store.write, batch)
            except Exception as error:
                if not self.failure:
                    log.error(
                        "journal_failed",
                        path=str(self._store.path),
                        reason=str(error),
                        exc_info=not isinstance(error, sqlite3.Error),
                    )
                self._change(f"the journal cannot be written: {error}")
                if self._closing:
                    return False
                await asyncio.sleep(_RETRY_S)
            else:
                if self.failure:
                    log.info("journal_recovered", path=str(self._store.path))
                self._change("")
                return True

    def _change(self, failure: str) -> None:
        if failure != self.failure:
            self.failure = failure
            self._on_change()
