"""What a draining server leaves to its journal, and what its clients are told."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.messages import inference
from support.paced_journal import ONE, Life, read_now, settle

from rankserve.server.engines.contract import TokensProduced
from rankserve.server.errors import ServerDraining
from rankserve.server.events import Accepted, EventStream, Failed, Finished
from rankserve.server.journal.store import JournalStore
from rankserve.server.lifecycle import Lifecycle, State
from rankserve.server.rpc.validation import to_spec


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    store = JournalStore(tmp_path / "journal")
    yield Life(store)
    store.close()


def submit(life: Life, request_id: str, stream: EventStream, *, detached: bool = True) -> None:
    message = inference(request_id, detached=detached, deadline_ms=60_000)
    spec = to_spec(message, max_prompt_bytes=1000, replay=True, keep_body=True)
    life.dispatcher.submit(spec, stream)


async def test_a_stream_outlives_what_is_left_to_the_journal(life: Life) -> None:
    """A running request on the stream of a parked one goes on, and its client is told of its end."""
    stream = EventStream()
    submit(life, "runs", stream, detached=False)
    life.journal.commit()
    (running,) = life.dispatcher.plan(ONE).starting
    submit(life, "waits", stream)
    life.journal.commit()
    draining = asyncio.create_task(life.dispatcher.drain(10))
    await settle()
    life.journal.commit()
    await read_now(stream)
    assert stream.open_requests == {"runs"}
    running.request.output_tokens = 1
    life.dispatcher.produced([TokensProduced(running.request, 1, "so ", "stop")])
    life.journal.commit()
    assert isinstance((await read_now(stream))[-1], Finished)
    assert await stream.take() == []
    assert isinstance(stream.error, ServerDraining)
    await draining


async def test_a_request_that_is_being_recorded_is_left_too(life: Life) -> None:
    stream = EventStream()
    submit(life, "new", stream)
    await life.dispatcher.drain(0)
    life.journal.commit()
    assert [type(event) for event in await read_now(stream)] == [Accepted]
    assert life.dispatcher.counters.failed == 0
    assert [entry.outcome for entry in life.store.entries()] == [None]
    assert life.dispatcher.admission.waiting == 0


async def test_who_attaches_to_what_was_left_is_sent_elsewhere(life: Life) -> None:
    submit(life, "waits", EventStream())
    life.journal.commit()
    await life.dispatcher.drain(0)
    stream = EventStream(owns=False)
    life.dispatcher.attach(life.dispatcher.find("waits"), stream)
    await read_now(stream)
    assert await stream.take() == []
    assert isinstance(stream.error, ServerDraining)


async def test_what_was_left_can_still_be_cancelled(life: Life) -> None:
    submit(life, "waits", EventStream())
    life.journal.commit()
    await life.dispatcher.drain(0)
    assert life.dispatcher.cancel("waits")
    life.journal.commit()
    assert life.dispatcher.live_requests() == []
    life.dispatcher.scheduler.check_integrity()
    (entry,) = life.store.entries()
    assert entry.outcome is not None


async def test_a_request_that_belongs_to_its_stream_ends(life: Life) -> None:
    stream = EventStream()
    submit(life, "mine", stream, detached=False)
    life.journal.commit()
    await life.dispatcher.drain(0)
    life.journal.commit()
    last = (await read_now(stream))[-1]
    assert isinstance(last, Failed)
    assert isinstance(last.error, ServerDraining)


async def test_what_drained_before_it_had_a_token_begins_anew_when_it_is_sent_again(life: Life) -> None:
    submit(life, "mine", EventStream(), detached=False)
    life.journal.commit()
    await life.dispatcher.drain(0)
    life.journal.commit()
    again = Life(life.store)
    stream = EventStream()
    submit(again, "mine", stream, detached=False)
    again.journal.commit()
    assert [type(event) for event in await read_now(stream)] == [Accepted]
    (entry,) = again.store.entries()
    assert (entry.id, entry.outcome) == ("mine", None)
    assert again.dispatcher.counters.accepted == 1


async def test_who_had_a_token_is_told_its_end_again(life: Life) -> None:
    submit(life, "mine", EventStream(), detached=False)
    life.journal.commit()
    (running,) = life.dispatcher.plan(ONE).starting
    running.request.output_tokens = 1
    life.dispatcher.produced([TokensProduced(running.request, 1, "so ")])
    await life.dispatcher.drain(0)
    life.journal.commit()
    again = Life(life.store)
    stream = EventStream()
    submit(again, "mine", stream, detached=False)
    last = (await read_now(stream))[-1]
    assert isinstance(last, Failed)
    assert isinstance(last.error, ServerDraining)


async def test_a_drained_server_serves_on_when_its_journal_can_be_written_again(life: Life) -> None:
    states: list[State] = []
    lifecycle = Lifecycle(life.dispatcher, states.append)
    lifecycle.drain()
    life.journal.failure = "the journal cannot be written: disk I/O error"
    lifecycle.changed()
    life.journal.failure = ""
    wakes = life.engine.wakes
    lifecycle.changed()
    assert states == [State.DRAINING, State.FAILED, State.DRAINING]
    assert life.engine.wakes > wakes
