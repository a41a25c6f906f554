"""Clients of one RankServe server that send as fast as they are told, and note when they are answered."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from rankserve.v1 import scheduler_pb2 as pb
from rankserve.v1.scheduler_pb2_grpc import SchedulerServiceStub

# Requests that one message carries.
PER_MESSAGE = 100
_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 64 << 20))
_WORDS = ("why", "how", "explain", "the", "tides", "moon", "list", "three", "reasons", "for", "winter", "in")


def channel(address: str) -> Any:
    return grpc.aio.insecure_channel(address, options=_OPTIONS)


def stub_on(connection: Any) -> Any:
    # The generated stub's types are those of the blocking calls.
    return SchedulerServiceStub(connection)


def requests(count: int, shortest: int, longest: int, seed: int, prefix: str) -> list[pb.InferenceRequest]:
    """Requests of 6 to 20 words each, whose answers have so many tokens, drawn uniformly."""
    draw = random.Random(seed)
    return [
        pb.InferenceRequest(
            id=f"{prefix}-{n}",
            prompt=" ".join(draw.choices(_WORDS, k=draw.randint(6, 20))),
            sampling=pb.SamplingParams(max_tokens=longest),
            replay_output_tokens=draw.randint(shortest, longest),
        )
        for n in range(count)
    ]


def messages(of: Sequence[pb.InferenceRequest], size: int = PER_MESSAGE) -> Iterator[pb.SubmitRequest]:
    for start in range(0, len(of), size):
        yield pb.SubmitRequest(requests=of[start : start + size])


async def stats(stub: Any) -> pb.GetStatsResponse:
    response: pb.GetStatsResponse = await stub.GetStats(pb.GetStatsRequest())
    return response


@dataclass(slots=True)
class Accepting:
    """How fast a server accepted what was sent to it at once.

    Attributes:
        per_s: accepted requests a second, from the first sent to the last told.
        scoring: those that had no score yet when the last was accepted.
        scored_s: when the last was told to be queued, in seconds after the first was sent.
    """

    per_s: float
    scoring: int
    scored_s: float


async def accept_all(address: str, count: int, seed: int) -> Accepting:
    """Sends requests through one stream as fast as it takes them, and leaves."""
    async with channel(address) as connection:
        stub = stub_on(connection)
        made = list(messages(requests(count, 100, 400, seed, f"a{seed}")))
        call = stub.Submit()
        began_s = time.perf_counter()
        sending = asyncio.create_task(_send(call, made))
        accepted = queued = scoring = 0
        accepted_s = 0.0
        while queued < count:
            response = await call.read()
            for event in response.events:
                accepted += event.HasField("accepted")
                queued += event.HasField("queued")
            if accepted == count and not accepted_s:
                accepted_s = time.perf_counter() - began_s
                scoring = (await stats(stub)).scoring
        scored_s = time.perf_counter() - began_s
        await sending
        call.cancel()
        return Accepting(count / accepted_s, scoring, scored_s)


@dataclass(slots=True)
class Delivery:
    """How fast events arrived while every slot was taken, and how late.

    Attributes:
        per_s: events a second.
        delays_s: from the last token, on the server's clock, to the arrival of the result that tells of it.
    """

    per_s: float = 0.0
    delays_s: list[float] = field(default_factory=list)


async def steps_per_s(address: str, slots: int, seed: int) -> float:
    """Steps a second of an LLM whose every slot decodes."""
    async with channel(address) as connection:
        stub = stub_on(connection)
        call = stub.Submit()
        sending = asyncio.create_task(_send(call, list(messages(requests(slots, 4000, 4000, seed, "c")))))
        reading = asyncio.create_task(_read(call))
        while (await stats(stub)).running < slots:
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        before, began_s = await stats(stub), time.perf_counter()
        await asyncio.sleep(2)
        steps = (await stats(stub)).steps_total - before.steps_total
        took_s = time.perf_counter() - began_s
        await sending
        reading.cancel()
        call.cancel()
        return steps / took_s


async def deliver(address: str, slots: int, seed: int) -> Delivery:
    """Keeps every slot taken by answers of 100 to 400 tokens until four times the slots have ended."""
    count = 5 * slots
    delivery = Delivery()
    async with channel(address) as connection:
        call = stub_on(connection).Submit()
        sending = asyncio.create_task(
            _send(call, list(messages(requests(count, 100, 400, seed, f"d{seed}"))))
        )
        events = finished = 0
        began_s = ended_s = 0.0
        while finished < 4 * slots:
            response = await call.read()
            now, now_s = time.time(), time.perf_counter()
            events += len(response.events) if began_s else 0
            for event in response.events:
                if event.HasField("finished"):
                    finished += 1
                    # By then all have been accepted, and every slot decodes.
                    began_s = began_s or now_s
                    timing = event.finished.timing
                    produced = timing.accept_time.ToNanoseconds() / 1e9 + timing.last_token_s
                    delivery.delays_s.append(now - produced)
                elif event.HasField("failed"):
                    raise RuntimeError(event.failed.status.message)
            ended_s = now_s
        delivery.per_s = events / (ended_s - began_s)
        await sending
        call.cancel()
    return delivery


@dataclass(slots=True)
class Acknowledging:
    """How fast a server acknowledged requests while many waited and many streams were open.

    Attributes:
        began, ended: when it was measured, as Unix time.
        scoring: requests that had no score yet at the end.
        taken_s: from sending to `Accepted`, for each request.
    """

    began: float = 0.0
    ended: float = 0.0
    scoring: int = 0
    taken_s: list[float] = field(default_factory=list)


async def acknowledgements(address: str, waiting: int, streams: int, rate: float, seed: int) -> Acknowledging:
    """Sends one request at a time on each of many open streams.

    Args:
        address: of a server whose slots are taken for as long as this lasts.
        waiting: requests that wait in its queue meanwhile.
        streams: Submit streams that are open at once, on ten connections.
        rate: requests a second over all of them.
        seed: of prompts and pauses.
    """
    draw = random.Random(seed)
    async with channel(address) as connection:
        stub = stub_on(connection)
        background = stub.Submit()
        sending = asyncio.create_task(
            _send(background, list(messages(requests(waiting, 8000, 8000, seed, f"w{seed}"))))
        )
        accepted = 0
        while accepted < waiting:
            response = await background.read()
            accepted += sum(event.HasField("accepted") for event in response.events)
        await sending
        reading = asyncio.create_task(_read(background))
        connections = [channel(address) for _ in range(10)]
        calls = [stub_on(connections[n % 10]).Submit() for n in range(streams)]
        # What is measured is open streams, not their opening.
        while (await stats(stub)).open_streams < streams:
            await asyncio.sleep(0.1)
        given = Acknowledging(began=time.time())

        async def one(number: int) -> None:
            pause_s = streams / rate
            await asyncio.sleep(draw.random() * pause_s)
            for request in requests(3, 8000, 8000, seed + number, f"s{seed}-{number}"):
                sent_s = time.perf_counter()
                await calls[number].write(pb.SubmitRequest(request=request))
                kinds: set[str | None] = set()
                while "accepted" not in kinds:
                    kinds = {event.WhichOneof("event") for event in (await calls[number].read()).events}
                given.taken_s.append(time.perf_counter() - sent_s)
                await asyncio.sleep(pause_s)

        await asyncio.gather(*(one(number) for number in range(streams)))
        given.ended = time.time()
        state = await stats(stub)
        given.scoring = state.scoring
        if state.waiting < waiting or state.open_streams < streams:
            raise RuntimeError(f"{state.waiting} waited and {state.open_streams} streams were open")
        reading.cancel()
        for call in (background, *calls):
            call.cancel()
        for opened in connections:
            await opened.close()
    return given


async def _send(call: Any, made: Sequence[pb.SubmitRequest], interval_s: float = 0.0) -> None:
    next_s = time.perf_counter()
    for message in made:
        await call.write(message)
        next_s += interval_s
        if (pause_s := next_s - time.perf_counter()) > 0:
            await asyncio.sleep(pause_s)
    await call.done_writing()


async def _read(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass
