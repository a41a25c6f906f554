"""Promise: an LLM that fails loses no request, and no client gets a token twice.

A real server drives engines that fail on purpose: each kind of fault at 10 % for some seconds (five minutes
in all by `make promises`), then all at 5 %, which is every other request. And one of two engines is killed
with SIGKILL and comes back. What clients are told is judged: each request ends once, its tokens are there
once, and an answer is the whole answer.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from itertools import count

from support.fake_process import FakeProcess
from support.messages import inference, reason
from support.promises import FULL, note
from support.server_process import Connection, ServerProcess, StartServer
from support.submit_stream import History, SubmitStream

from rankserve.server.engines.fake import token_numbers
from rankserve.server.engines.fake.faults import FAULT_KINDS
from rankserve.v1 import scheduler_pb2 as pb

EACH_FAULT_S = 30.0 if FULL else 1.0
KILLS = 5 if FULL else 1
AT_ONCE = 60
ENGINE = ("--ttft-s", "0.002", "--itl-s", "0.002", "--max-num-seqs", "8", "--mean-output-tokens", "30")


def serve(start_server: StartServer, *engines: FakeProcess) -> ServerProcess:
    urls = ",".join(engine.base_url for engine in engines)
    return start_server("--engine", "openai", "--engine-url", urls, "--engine-timeout-s", "1")


def request(number: int) -> pb.InferenceRequest:
    if number % 2:
        return inference(f"r{number}", words=number % 50 + 2, output=None, max_tokens=200)
    chat = pb.ChatMessages(messages=[pb.ChatMessage(role="user", content=f"heliotrope {number}")])
    return inference(f"r{number}", output=None, max_tokens=200, prompt=None, chat=chat)


class Load:
    """So many requests at a time, on one stream, until it is told to stop; then it waits for their ends."""

    def __init__(self, stream: SubmitStream) -> None:
        self._stream = stream
        self._sent = 0

    async def run(self, until: Callable[[], bool]) -> list[str]:
        """Ids of all that were sent."""
        ids = []
        numbers = count(self._sent)
        while not until():
            await self._stream.until(lambda history: len(history.ended) > self._sent - AT_ONCE)
            batch = [request(next(numbers)) for _ in range(self._stream_room())]
            self._sent += len(batch)
            ids += [message.id for message in batch]
            await self._stream.send_together(*batch)
        await self._stream.until_ended(*ids)
        return ids

    def _stream_room(self) -> int:
        return AT_ONCE - (self._sent - len(self._stream.history.ended))


def judge(history: History) -> Counter[str]:
    """How requests ended; raises AssertionError for one that was answered with anything but its answer."""
    history.check()
    ends: Counter[str] = Counter()
    for request_id in history.by_id:
        if request_id in history.ids_with["failed"]:
            ends[reason(history.failure(request_id).status)] += 1
            continue
        ends["finished"] += 1
        numbers = token_numbers(history.text(request_id))
        assert numbers == list(range(len(numbers))), request_id
    return ends


async def test_no_fault_of_an_engine_loses_a_request_or_repeats_a_token(start_server: StartServer) -> None:
    with FakeProcess(*ENGINE) as one, FakeProcess(*ENGINE, "--seed", "0") as two:
        server = serve(start_server, one, two)
        async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
            load = Load(stream)
            for faults in (*({kind: 0.1} for kind in FAULT_KINDS), dict.fromkeys(FAULT_KINDS, 0.05)):
                for engine in (one, two):
                    engine.set_faults(
                        {kind: {"probability": each, "retry_after_s": 0} for kind, each in faults.items()}
                    )
                end_s = time.monotonic() + EACH_FAULT_S
                await load.run(lambda end_s=end_s: time.monotonic() >= end_s)  # type: ignore[misc]
            ends = judge(stream.history)
            stats = await connection.stats()
        injected = Counter(one.injected()) + Counter(two.injected())
    note("Faults", ends=dict(ends), injected=dict(injected))
    assert set(injected) == set(FAULT_KINDS)
    assert set(ends) <= {"finished", "ENGINE_LOST"}
    assert ends["finished"] >= 0.99 * ends.total()
    assert stats.accepted_total == ends.total() == stats.finished_total + stats.failed_total


async def test_one_of_two_engines_is_killed_and_comes_back(start_server: StartServer) -> None:
    with FakeProcess(*ENGINE) as stays, FakeProcess(*ENGINE) as dies:
        server = serve(start_server, stays, dies)
        async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
            over = False
            load = asyncio.create_task(Load(stream).run(lambda: over))
            for _ in range(KILLS):
                await until_circuit(connection, dies, "closed", busy=True)
                await asyncio.to_thread(dies.kill)
                opened_s = await until_circuit(connection, dies, "open")
                await asyncio.to_thread(dies.start)
                closed_s = await until_circuit(connection, dies, "closed", busy=True)
                note("Kill", circuit_open_after_s=f"{opened_s:.2f}", serves_again_after_s=f"{closed_s:.2f}")
                assert opened_s < 2
                assert closed_s < 5
            over = True
            await load
            ends = judge(stream.history)
    note("Kill", ends=dict(ends))
    assert set(ends) == {"finished"}


async def until_circuit(
    connection: Connection, engine: FakeProcess, circuit: str, *, busy: bool = False
) -> float:
    """Seconds until the server sees the engine so, and has given it requests if it is to be busy."""
    start_s = time.monotonic()
    while True:
        stats = await connection.stats()
        (endpoint,) = (each for each in stats.endpoints if each.url == engine.base_url)
        if endpoint.circuit == circuit and (endpoint.in_flight or not busy):
            return time.monotonic() - start_s
        assert time.monotonic() < start_s + 30, endpoint
        await asyncio.sleep(0.02)
