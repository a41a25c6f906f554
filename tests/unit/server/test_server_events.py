"""How much of what a client does not read the server keeps, and how much goes into one message."""

import asyncio

import pytest

from rankserve.server.errors import InvalidRequest
from rankserve.server.events import Accepted, Event, EventStream, Finished, Timing, Tokens

MESSAGE_LIMIT = 4 << 20
TIMING = Timing(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def finished(request_id: str, **fields: object) -> Finished:
    values: dict[str, object] = {
        "finish_reason": "stop",
        "input_tokens": 1,
        "output_tokens": 1,
        "text": "",
        "score": 0.0,
        "ranker_version": "toy/1",
        "policy": "fcfs",
        "preemptions": 0,
        "promoted": False,
        "timing": TIMING,
        **fields,
    }
    return Finished(request_id, **values)  # type: ignore[arg-type]


async def taken(stream: EventStream) -> list[list[Event]]:
    stream.complete()
    messages = []
    while events := await stream.take():
        messages.append(events)
    return messages


async def test_tokens_of_a_slow_reader_grow_into_one_chunk() -> None:
    stream = EventStream()
    for offset in range(100):
        stream.put_tokens("a", offset, 1, "word ")
    assert await taken(stream) == [[Tokens("a", 0, 100, "word " * 100)]]


async def test_tokens_after_another_event_of_their_request_come_after_it() -> None:
    stream = EventStream()
    stream.put_tokens("a", 0, 1, "x")
    stream.refuse("a", InvalidRequest("prompt", "must not be empty"))
    stream.put_tokens("a", 1, 1, "y")
    [events] = await taken(stream)
    assert [type(event).__name__ for event in events] == ["Tokens", "Failed", "Tokens"]


@pytest.mark.parametrize(
    "event",
    [
        finished("a", text="é" * 200_000),
        finished("a", metadata={f"{n:02}": "é" * 127 for n in range(16)}),
        finished("a" * 100_000),
    ],
    ids=["text", "metadata", "id"],
)
async def test_one_message_stays_far_below_the_limit_of_grpc(event: Finished) -> None:
    stream = EventStream()
    for _ in range(2000):
        stream.put(event)
    text = event.text + event.request_id + "".join(event.metadata.values())
    messages = await taken(stream)
    assert sum(map(len, messages)) == 2000
    assert max(map(len, messages)) * len(text.encode()) < MESSAGE_LIMIT / 2


async def test_an_event_too_large_for_company_goes_alone() -> None:
    stream = EventStream()
    for text in ("", "x" * (2 << 20), ""):
        stream.put(finished("a", text=text))
    assert [len(message) for message in await taken(stream)] == [1, 1, 1]


async def test_who_submits_without_reading_is_held_up_until_it_reads() -> None:
    stream = EventStream()
    submitted = 0

    async def submit_forever() -> None:
        nonlocal submitted
        while True:
            await stream.room()
            stream.put(Accepted(str(submitted), 0.0))
            submitted += 1

    submitter = asyncio.create_task(submit_forever())
    await asyncio.sleep(0)
    held_at = submitted
    await asyncio.sleep(0)
    assert submitted == held_at
    read = await stream.take()
    await asyncio.sleep(0)
    assert submitted == held_at + len(read)
    submitter.cancel()


async def test_a_stream_broken_off_ends_at_once() -> None:
    stream = EventStream()
    stream.open_requests.add("runs")
    stream.put(Accepted("runs", 0.0))
    stream.break_off()
    assert await stream.take() == []


def test_a_stream_says_when_waiting_for_more_gains_nothing() -> None:
    stream = EventStream()
    for n in range(511):
        stream.put(Accepted(f"r{n}", 0.0))
    assert not stream.fills_a_message
    stream.put(Accepted("last", 0.0))
    assert stream.fills_a_message
