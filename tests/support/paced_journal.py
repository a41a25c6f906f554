"""A journal that writes when the test says so, and servers' lives on one journal without any process."""

import asyncio
from collections.abc import Callable
from typing import cast

from rankserve.server.dispatcher import Dispatcher
from rankserve.server.engines.contract import EndpointState, Engine, EngineCapacity
from rankserve.server.events import Event, EventStream
from rankserve.server.journal.journal import SqliteJournal
from rankserve.server.journal.store import Batch, JournalStore
from rankserve.server.ranking.ranker import Ranker
from rankserve.server.recovery import recover
from rankserve.server.rpc.validation import from_body
from rankserve.server.scheduling.budget import EngineRoom
from rankserve.server.scheduling.policies import make_policy
from rankserve.server.scheduling.scheduler import Scheduler
from rankserve.server.settings import ServerSettings

MANY = EngineRoom(sequences=64, batched_tokens=10**6, kv_blocks=10**6)
ONE = EngineRoom(sequences=1, batched_tokens=2048, kv_blocks=1000)


class PacedJournal(SqliteJournal):
    """Like the real one, but for `commit`, which the real one's task does."""

    def __init__(self, store: JournalStore) -> None:
        super().__init__(store, lambda: None)

    def commit(self) -> None:
        batch, self._batch = self._batch, Batch()
        acts, self._acts = self._acts, []
        self._store.write(batch)
        for act in acts:
            act()


class IdleRanker:
    active = None
    scores = False
    neutral_total = 0


class IdleEngine:
    """Runs nothing by itself."""

    name = "idle"
    time_scale = 1.0

    def __init__(self, *, resumes: bool = True, max_model_len: int = 10_000, max_sequences: int = 64) -> None:
        self.capacity = EngineCapacity(
            max_sequences=max_sequences,
            max_batched_tokens=2048,
            max_model_len=max_model_len,
            kv_blocks=1000,
            resumes=resumes,
        )
        self.wakes = 0
        self.endpoints: list[EndpointState] = []

    def endpoint_states(self) -> list[EndpointState]:
        return self.endpoints

    @property
    def models(self) -> tuple[str]:
        return (self.name,)

    def count_tokens(self, prompt: str) -> int:
        return len(prompt)

    def wake(self) -> None:
        self.wakes += 1

    def evict(self, request: object) -> None: ...


class Life:
    """A server's dispatcher from its start, with what a journal left it, to its crash.

    Args:
        store: the journal's file.
        settings: of the server.
        engine: that it drives.
        clock, wall_clock: the server's.
    """

    def __init__(
        self,
        store: JournalStore,
        settings: ServerSettings | None = None,
        engine: IdleEngine | None = None,
        clock: Callable[[], float] = lambda: 0.0,
        wall_clock: Callable[[], float] = lambda: 1e9,
    ) -> None:
        self.store = store
        self.journal = PacedJournal(store)
        self.engine = engine or IdleEngine()
        self.dispatcher = Dispatcher(
            Scheduler(make_policy("fcfs")),
            cast(Engine, self.engine),
            cast(Ranker, IdleRanker()),
            settings or ServerSettings(),
            journal=self.journal,
            clock=clock,
            wall_clock=wall_clock,
        )
        recover(store.entries(), self.dispatcher, from_body, clock=clock, wall_clock=wall_clock)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def read_now(stream: EventStream) -> list[Event]:
    """What waits on a stream; an empty list if nothing does, or the stream has ended."""
    taking = asyncio.ensure_future(stream.take())
    await settle()
    if taking.done():
        return taking.result()
    taking.cancel()
    return []
