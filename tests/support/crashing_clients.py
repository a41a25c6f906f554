"""Clients that crash, as a program. Arguments: addresses of a server's gRPC, HTTP and operations; a seed.

A steady supervisor keeps six clients at work, each a process of its own that does one of the things below.
Most are killed with SIGKILL amid it, and replaced. On SIGTERM it kills all of them and prints as JSON how
many of each kind it started, and how many it killed before that.
"""

import asyncio
import json
import os
import random
import signal
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from time import monotonic, sleep

import grpc
from support.messages import inference
from support.raw_http2 import headers, message, opening
from support.server_process import Connection
from support.submit_stream import SubmitStream

from rankserve.v1 import scheduler_pb2 as pb

_AT_ONCE = 6
_POLL_S = 0.05
_LIFE_S = (0.3, 3.5)


class Client:
    """One client.

    Args:
        addresses: of the server's gRPC, HTTP and operations ports.
        draw: decides what it does.
    """

    def __init__(self, addresses: list[str], draw: random.Random) -> None:
        self._address, self._http, self._operations = addresses
        self._draw = draw
        self._sent = 0
        self.kinds: dict[str, Callable[[], Coroutine[None, None, None]]] = {
            "submit": self.submit,
            "half-close": self.half_close,
            "unread": self.unread,
            "generate": self.generate,
            "deadlines": self.deadlines,
            "watch": self.watch,
            "http": self.http,
            "live-page": self.live_page,
            "raw": self.raw,
        }

    def _request(self, **fields: object) -> pb.InferenceRequest:
        self._sent += 1
        fields = {"output": self._draw.randint(1, 200), "words": self._draw.randint(2, 40), **fields}
        return inference(f"soak-{os.getpid()}-{self._sent}-{self._draw.getrandbits(48):x}", **fields)  # type: ignore[arg-type]

    async def submit(self) -> None:
        """Many requests on one stream, again and again."""
        async with Connection(self._address) as connection, SubmitStream(connection.scheduler) as stream:
            while True:
                requests = [self._request(tenant=f"tenant-{n % 3}") for n in range(20)]
                await stream.send_together(*requests)
                await stream.until_ended(*(request.id for request in requests[:10]))

    async def half_close(self) -> None:
        """Streams that are half-closed, then read to the end or broken off."""
        async with Connection(self._address) as connection:
            while True:
                async with SubmitStream(connection.scheduler) as stream:
                    await stream.send(*(self._request() for _ in range(5)))
                    await stream.half_close()
                    if self._draw.random() < 0.5:
                        await stream.ended()

    async def unread(self) -> None:
        """Results of megabytes that nobody reads."""
        async with Connection(self._address) as connection:
            call = connection.scheduler.Submit()
            metadata = {f"{n:02}": "v" * 250 for n in range(16)}
            while True:
                await call.write(
                    pb.SubmitRequest(requests=[self._request(output=5, metadata=metadata) for _ in range(20)])
                )
                await asyncio.sleep(0.02)

    async def generate(self) -> None:
        """Answers that are cancelled after a few events."""
        async with Connection(self._address) as connection:
            while True:
                call = connection.scheduler.Generate(pb.GenerateRequest(request=self._request()))
                for _ in range(self._draw.randint(0, 4)):
                    if await call.read() is grpc.aio.EOF:
                        break
                call.cancel()

    async def deadlines(self) -> None:
        """Deadlines of the call and of the request that most answers miss."""
        async with Connection(self._address) as connection:
            while True:
                request = self._request(output=2000, deadline_ms=self._draw.randint(1, 300))
                timeout_s = self._draw.uniform(0.001, 0.3)
                with suppress(grpc.aio.AioRpcError):
                    call = connection.scheduler.Generate(
                        pb.GenerateRequest(request=request), timeout=timeout_s
                    )
                    async for _ in call:
                        pass

    async def watch(self) -> None:
        """Detached requests that are lost and attached to again."""
        async with Connection(self._address) as connection:
            while True:
                request = self._request(detached=True)
                call = connection.scheduler.Generate(pb.GenerateRequest(request=request))
                await call.read()
                call.cancel()
                watched = pb.WatchRequest(positions=[pb.WatchPosition(request_id=request.id)])
                with suppress(grpc.aio.AioRpcError):
                    async for _ in connection.scheduler.Watch(watched):
                        if self._draw.random() < 0.1:
                            break
                if self._draw.random() < 0.3:
                    await connection.scheduler.CancelRequest(pb.CancelRequestRequest(request_id=request.id))

    async def http(self) -> None:
        """Completions, streamed or not, that are read, reset or never read."""
        while True:
            body = {
                "prompt": "heliotrope one two three",
                "max_tokens": self._draw.randint(1, 400),
                "stream": self._draw.random() < 0.7,
            }
            await self._ask(self._http, "POST", "/v1/completions", json.dumps(body).encode())

    async def live_page(self) -> None:
        """The live page's stream of events."""
        while True:
            await self._ask(self._operations, "GET", "/live/events", b"")

    async def raw(self) -> None:
        """Connections and calls that are never finished."""
        whole = (
            opening()
            + headers(b"/rankserve.v1.SchedulerService/Generate")
            + message(pb.GenerateRequest(request=self._request(output=2000)).SerializeToString())
        )
        while True:
            _, writer = await _connect(self._address)
            with suppress(ConnectionError):
                writer.write(whole[: self._draw.randint(1, len(whole))])
                await asyncio.sleep(self._draw.uniform(0.0, 0.2))
            _reset(writer)

    async def _ask(self, address: str, method: str, path: str, body: bytes) -> None:
        """One HTTP request; then it reads some, reads nothing, half-closes, and resets the connection."""
        reader, writer = await _connect(address)
        head = f"{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        how = self._draw.choice(["read", "read", "nothing", "half-close"])
        with suppress(ConnectionError, TimeoutError):
            if how == "half-close":
                writer.write_eof()
            async with asyncio.timeout(self._draw.uniform(0.05, 1.0)):
                if how == "nothing":
                    await asyncio.sleep(1)
                while await reader.read(4096):
                    pass
        _reset(writer)


async def _connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with RST."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Supervisor:
    """Keeps clients at work until it is told to end."""

    def __init__(self, addresses: list[str], seed: int) -> None:
        self._addresses = addresses
        self._draw = random.Random(seed)
        self._started: Counter[str] = Counter()
        self._killed = 0
        # Process id, and when it is to be killed.
        self._clients: dict[int, float] = {}
        self._over = False

    def run(self) -> dict[str, object]:
        signal.signal(signal.SIGTERM, self._end)
        try:
            while not self._over:
                self._reap()
                while len(self._clients) < _AT_ONCE:
                    self._start()
                sleep(_POLL_S)
        finally:
            for pid in self._clients:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        return {"started": dict(self._started), "killed": self._killed}

    def _end(self, *_: object) -> None:
        self._over = True

    def _reap(self) -> None:
        for pid, end_s in list(self._clients.items()):
            # It may have ended by itself, for instance because the server cut it.
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self._clients[pid]
            elif monotonic() > end_s:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                del self._clients[pid]
                self._killed += 1

    def _start(self) -> None:
        seed, end_s = self._draw.getrandbits(32), monotonic() + self._draw.uniform(*_LIFE_S)
        client = Client(self._addresses, random.Random(seed))
        kinds = list(client.kinds)
        # All in turn, so that the shortest soak has each.
        kind = kinds[self._started.total() % len(kinds)]
        self._started[kind] += 1
        # No thread runs before the fork: gRPC starts its own with the first channel.
        pid = os.fork()
        if pid:
            self._clients[pid] = end_s
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        status = 1
        try:
            asyncio.run(client.kinds[kind]())
            status = 0
        finally:
            os._exit(status)


if __name__ == "__main__":
    print(json.dumps(Supervisor(sys.argv[1:4], int(sys.argv[4])).run()), flush=True)
