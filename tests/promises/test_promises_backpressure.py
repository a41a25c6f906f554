"""Promise: a full queue refuses exactly what it has no room for, at once, and overload costs no memory.

Submitting Q + slots + K requests at once gives K refusals. Ten times more load than is served, for 5 s (60 s
by `make promises`), leaves memory flat and the wait of those that are accepted as it is with a full queue.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from support.messages import code, inference, reason, retry_delay_s
from support.promises import FULL, note
from support.server_process import Connection, StartServer
from support.submit_stream import SubmitStream

from rankserve.v1 import scheduler_pb2 as pb

QUEUE, SLOTS = 200, 8
OVERLOAD_S = 60.0 if FULL else 5.0
MOST_GROWTH_MIB = 50.0


async def test_exactly_what_does_not_fit_is_refused_at_once(start_server: StartServer) -> None:
    server = start_server(
        "--replay", "--max-sequences", str(SLOTS), "--max-waiting", str(QUEUE), "--time-scale", "0.01"
    )
    refused = 40
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        ids = [f"r{n}" for n in range(QUEUE + SLOTS + refused)]
        await stream.send_together(*(inference(request_id, output=1000) for request_id in ids))
        await stream.until(lambda h: len(h.ids_with["accepted"]) + len(h.ended) == len(ids))
        failures = [stream.history.failure(request_id) for request_id in stream.history.ended]
        assert len(failures) == refused
        for failure in failures:
            assert code(failure.status) is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert reason(failure.status) == "QUEUE_FULL"
            # To the millisecond.
            assert retry_delay_s(failure.status) > 0
        taken_s = [await _refusal_s(connection, f"late{n}") for n in range(100)]
        note("refusal", n=len(taken_s), worst_ms=f"{1000 * max(taken_s):.1f}")
        if FULL:
            assert max(taken_s) < 0.020


async def _refusal_s(connection: Connection, request_id: str) -> float:
    async with SubmitStream(connection.scheduler) as stream:
        # The stream is open before the clock starts.
        await stream.send(inference("refused-before-" + request_id))
        await stream.until(lambda history: len(history.ended) == 1)
        sent_s = time.perf_counter()
        await stream.send(inference(request_id))
        await stream.until_ended(request_id)
        return time.perf_counter() - sent_s


async def test_overload_grows_neither_memory_nor_the_wait(start_server: StartServer) -> None:
    options = ("--max-sequences", str(SLOTS), "--max-waiting", str(QUEUE), "--retain-results", "1000")
    server = start_server("--replay", "--policy", "fcfs", "--time-scale", "20", *options)
    pid = server.process.pid
    async with Connection(server.address) as connection:
        async with _offering(connection, "full", keep_full=True) as saturated:
            await asyncio.sleep(OVERLOAD_S / 3)
        served_per_s = len(saturated.waits_s) / (OVERLOAD_S / 3)
        before_mib = _rss_mib(pid)
        async with _offering(connection, "over", per_s=10 * served_per_s) as overloaded:
            await asyncio.sleep(OVERLOAD_S)
        growth_mib = _rss_mib(pid) - before_mib
        await connection.until_idle()
    full_p99_s, over_p99_s = _p99(saturated.waits_s), _p99(overloaded.waits_s)
    note(
        "overload",
        served_per_s=f"{served_per_s:.0f}",
        offered=overloaded.offered,
        refused=overloaded.refused,
        growth_mib=f"{growth_mib:.1f}",
        p99_at_saturation_s=f"{full_p99_s:.2f}",
        p99_overloaded_s=f"{over_p99_s:.2f}",
    )
    assert overloaded.refused > 2 * len(overloaded.waits_s), "this was no overload"
    assert growth_mib < MOST_GROWTH_MIB
    if FULL:
        assert over_p99_s < 2 * full_p99_s


class _Offered:
    """What became of the requests of one load."""

    def __init__(self) -> None:
        self.offered = 0
        self.refused = 0
        self.waits_s: list[float] = []


@asynccontextmanager
async def _offering(
    connection: Connection, name: str, *, per_s: float = 0.0, keep_full: bool = False
) -> AsyncIterator[_Offered]:
    """Offers requests until the block ends, then lets what was accepted finish.

    Args:
        connection: to the server.
        name: of the load, for ids.
        per_s: requests a second; or
        keep_full: as many as keep the queue full and are not refused.
    """
    offered = _Offered()
    sent_s: dict[str, float] = {}
    going = True
    room = asyncio.Semaphore(QUEUE + SLOTS if keep_full else 1_000_000)
    call = connection.scheduler.Submit()

    async def send() -> None:
        next_s = time.perf_counter()
        while going:
            batch = []
            for _ in range(1 if keep_full else max(1, round(per_s / 100))):
                await room.acquire()
                request = inference(f"{name}-{offered.offered}", output=20, result_only=True)
                sent_s[request.id] = time.perf_counter()
                offered.offered += 1
                batch.append(request)
            await call.write(pb.SubmitRequest(requests=batch))
            if not keep_full:
                next_s += 0.01
                await asyncio.sleep(max(0.0, next_s - time.perf_counter()))
        await call.done_writing()

    async def read() -> None:
        async for response in call:
            for event in response.events:
                if event.HasField("finished"):
                    offered.waits_s.append(time.perf_counter() - sent_s.pop(event.request_id))
                    room.release()
                elif event.HasField("failed"):
                    offered.refused += 1
                    del sent_s[event.request_id]
                    room.release()

    sending, reading = asyncio.create_task(send()), asyncio.create_task(read())
    try:
        yield offered
    finally:
        going = False
        await asyncio.gather(sending, reading)


def _rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def _p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]
