"""Clients that treat streams badly, one behaviour each."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

import grpc
from support import raw_http2
from support.messages import inference
from support.server_process import Connection
from support.token_files import ADMIN, bearer

from rankserve.v1 import scheduler_pb2 as pb

_METADATA = bearer(ADMIN)
_RST_STREAM = 3
_PATH = b"/rankserve.v1.SchedulerService/Submit"

Behaviour = Callable[[Connection, Random], Awaitable[None]]


async def open_and_abandon(connection: Connection, draw: Random) -> None:
    calls = [connection.scheduler.Submit(metadata=_METADATA) for _ in range(20)]
    await asyncio.sleep(draw.choice((0, 0.01)))
    for call in calls:
        call.cancel()


async def half_close_at_once(connection: Connection, draw: Random) -> None:
    call = connection.scheduler.Submit(metadata=_METADATA)
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK


async def never_read(connection: Connection, draw: Random) -> None:
    call = connection.scheduler.Submit(metadata=_METADATA)
    for n in range(300):
        # Some good, some refused.
        await call.write(
            pb.SubmitRequest(request=inference(f"unread-{draw.random()}", output=n % 3, words=n % 9))
        )
    call.cancel()


async def storm_of_cancels(connection: Connection, draw: Random) -> None:
    ids = [f"storm-{draw.random()}" for _ in range(50)]
    call = connection.scheduler.Submit(metadata=_METADATA)
    await call.write(pb.SubmitRequest(requests=[inference(i, output=4000) for i in ids]))
    codes = await asyncio.gather(*(_cancel(connection, draw.choice([*ids, "nobody"])) for _ in range(200)))
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND}, codes
    call.cancel()


async def lists_of_requests(connection: Connection, draw: Random) -> None:
    thousand = [inference(f"list-{draw.random()}", output=1, result_only=True) for _ in range(1000)]
    same = inference(f"same-{draw.random()}", output=1)
    other_body = inference(same.id, output=2)
    messages = [
        pb.SubmitRequest(),
        pb.SubmitRequest(request=pb.InferenceRequest()),
        pb.SubmitRequest(request=thousand[0], requests=thousand[:2]),
        pb.SubmitRequest(requests=thousand),
        pb.SubmitRequest(requests=[same] * 1000),
        pb.SubmitRequest(requests=[other_body] * 1000),
        pb.SubmitRequest(requests=[pb.InferenceRequest()] * 1000),
    ]
    draw.shuffle(messages)

    async def each() -> AsyncIterator[pb.SubmitRequest]:
        for message in messages:
            yield message

    call = connection.scheduler.Submit(each(), metadata=_METADATA)
    ended = 0
    async for response in call:
        for event in response.events:
            ended += event.HasField("finished") or event.HasField("failed")
            assert event.failed.status.code not in (2, 13, 14), event
    assert await call.code() is grpc.StatusCode.OK
    assert ended >= 1000 + 1 + 1000


async def reset_in_mid_stream(connection: Connection, draw: Random, address: str) -> None:
    request = pb.SubmitRequest(request=inference(f"reset-{draw.random()}", output=4000)).SerializeToString()
    data = raw_http2.frame(0, 0, 1, b"\0" + len(request).to_bytes(4, "big") + request)
    cut = draw.randrange(len(data)) if draw.random() < 0.3 else len(data)
    metadata = [(key.encode(), value.encode()) for key, value in _METADATA]
    reset = raw_http2.frame(_RST_STREAM, 0, 1, draw.choice((0, 2, 8, 1 << 31)).to_bytes(4, "big"))
    sent = raw_http2.opening() + raw_http2.headers(_PATH, metadata) + data[:cut] + reset + raw_http2.ping()
    with suppress(TimeoutError):
        await raw_http2.exchange(address, sent, until=b"\0\0\x08\x06\x01", timeout_s=0.3)


async def dying_client(connection: Connection, draw: Random, address: str) -> None:
    """Its connection goes with all that is open on it."""
    async with Connection(address) as own:
        calls: list[Any] = [own.scheduler.Submit(metadata=_METADATA) for _ in range(10)]
        for call in calls:
            await call.write(pb.SubmitRequest(request=inference(f"dying-{draw.random()}", output=4000)))


def behaviours(address: str) -> list[Behaviour]:
    async def reset(connection: Connection, draw: Random) -> None:
        await reset_in_mid_stream(connection, draw, address)

    async def dying(connection: Connection, draw: Random) -> None:
        await dying_client(connection, draw, address)

    return [
        open_and_abandon,
        half_close_at_once,
        never_read,
        storm_of_cancels,
        lists_of_requests,
        reset,
        dying,
    ]


async def _cancel(connection: Connection, request_id: str) -> grpc.StatusCode:
    call = connection.scheduler.CancelRequest(
        pb.CancelRequestRequest(request_id=request_id), metadata=_METADATA
    )
    return await call.code()
