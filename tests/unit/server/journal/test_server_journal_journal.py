"""Group commit: acts wait for the disk, keep their order, and are held back as long as it fails."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from rankserve.server.journal import journal as journal_module
from rankserve.server.journal.journal import SqliteJournal
from rankserve.server.journal.store import Batch, JournalStore


class PacedStore:
    """Writes when the test lets it."""

    path = Path("journal")

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.error: Exception | None = None
        self.closed = False
        self.may_write = threading.Event()
        self.may_write.set()

    def write(self, batch: Batch) -> None:
        assert self.may_write.wait(10)
        if self.error is not None:
            raise self.error
        self.batches.append(list(batch.forgotten))

    def close(self) -> None:
        self.closed = True


class Setup:
    def __init__(self) -> None:
        self.store = PacedStore()
        self.failures: list[str] = []
        self.journal = SqliteJournal(
            cast(JournalStore, self.store), lambda: self.failures.append(self.journal.failure)
        )
        self.told: list[int] = []

    def record(self, number: int) -> None:
        self.journal._batch.forgotten.append(number)
        self.journal.then(lambda: self.told.append(number))

    async def until_told(self, *numbers: int) -> None:
        async with asyncio.timeout(10):
            while self.told != list(numbers):
                await asyncio.sleep(0.001)

    async def until_failed(self) -> None:
        async with asyncio.timeout(10):
            while not self.journal.failure:
                await asyncio.sleep(0.001)


@pytest.fixture
async def setup(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Setup]:
    monkeypatch.setattr(journal_module, "_RETRY_S", 0.01)
    setup = Setup()
    setup.journal.start()
    yield setup
    setup.store.may_write.set()
    await setup.journal.aclose()


async def test_acts_follow_their_records_in_order(setup: Setup) -> None:
    for number in range(5):
        setup.record(number)
    assert setup.told == []
    await setup.until_told(0, 1, 2, 3, 4)
    assert setup.store.batches == [[0, 1, 2, 3, 4]]


async def test_what_gathers_while_one_is_written_goes_into_the_next(setup: Setup) -> None:
    setup.store.may_write.clear()
    setup.record(1)
    await asyncio.sleep(0.01)
    setup.record(2)
    setup.record(3)
    await asyncio.sleep(0.01)
    assert setup.told == []
    setup.store.may_write.set()
    await setup.until_told(1, 2, 3)
    assert setup.store.batches == [[1], [2, 3]]


async def test_an_act_that_records_waits_for_the_write_after(setup: Setup) -> None:
    setup.journal.then(lambda: setup.record(2))
    setup.record(1)
    await setup.until_told(1, 2)
    assert setup.store.batches == [[1], [2]]


async def test_nobody_is_told_while_writing_fails_and_all_are_after(setup: Setup) -> None:
    setup.store.error = sqlite3.OperationalError("database or disk is full")
    setup.record(1)
    await setup.until_failed()
    setup.record(2)
    await asyncio.sleep(0.05)
    assert setup.told == []
    assert setup.journal.failure == "the journal cannot be written: database or disk is full"
    setup.store.error = None
    await setup.until_told(1, 2)
    assert setup.failures == ["the journal cannot be written: database or disk is full", ""]
    assert setup.store.batches == [[1], [2]]


async def test_an_error_of_another_kind_shows_as_well(setup: Setup) -> None:
    """A task that died of it would leave everybody waiting and the server looking well."""
    setup.store.error = UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
    setup.record(1)
    await setup.until_failed()
    setup.store.error = None
    await setup.until_told(1)


async def test_an_act_that_raises_stops_no_other(setup: Setup) -> None:
    def fault() -> None:
        raise KeyError("a fault of the server")

    setup.journal.then(fault)
    setup.record(1)
    await setup.until_told(1)
    setup.record(2)
    await setup.until_told(1, 2)


async def test_closing_writes_what_is_left() -> None:
    setup = Setup()
    setup.journal.start()
    setup.record(1)
    await setup.journal.aclose()
    assert (setup.store.batches, setup.told, setup.store.closed) == ([[1]], [1], True)


async def test_closing_with_a_full_disk_ends_and_tells_nobody() -> None:
    setup = Setup()
    setup.store.error = sqlite3.OperationalError("database or disk is full")
    setup.journal.start()
    setup.record(1)
    async with asyncio.timeout(10):
        await setup.journal.aclose()
    assert (setup.store.batches, setup.told, setup.store.closed) == ([], [], True)
