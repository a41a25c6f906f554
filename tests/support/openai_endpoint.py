"""An OpenAI-compatible endpoint on loopback, on real sockets, that answers, or fails as a test asks."""

import asyncio
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

MODEL = "fake-7b"
_REASONS = {200: "OK", 302: "Found", 400: "Bad Request", 429: "Too Many Requests"}


@dataclass(slots=True, frozen=True)
class Asked:
    """A request as it came in. ``times`` counts those of the same prompt and seed, this one included."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    times: int

    @property
    def prompt(self) -> str:
        if "messages" in self.body:
            return str(self.body["messages"][-1]["content"])
        return str(self.body["prompt"])

    @property
    def sample(self) -> tuple[str, int | None]:
        """Prompt and seed: what tells one sample from another."""
        return self.prompt, self.body.get("seed")


@dataclass(slots=True, frozen=True)
class Reply:
    """What a test has the endpoint do instead of answering."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    behaviour: Literal["send", "hang", "cut"] = "send"

    @classmethod
    def error(cls, status: int, message: str, **headers: str) -> "Reply":
        body = json.dumps({"error": {"message": message, "code": status}}).encode()
        return cls(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def answer(asked: Asked) -> dict[str, Any]:
    """A completion whose length depends on prompt, seed and the cap alone."""
    digest = hashlib.blake2b(repr(asked.sample).encode(), digest_size=4).digest()
    length = 1 + int.from_bytes(digest) % 400
    cap = int(asked.body["max_tokens"])
    return {
        "id": "cmpl-0",
        "choices": [{"index": 0, "finish_reason": "length" if length >= cap else "stop"}],
        "usage": {"prompt_tokens": len(asked.prompt.split()) + 5, "completion_tokens": min(length, cap)},
    }


class FakeEndpoint:
    """Serves in a thread of its own until closed; a context manager.

    Args:
        reply: what to do instead of answering; None answers.
        delay_s: before each answer.
    """

    def __init__(
        self, reply: Callable[[Asked], Reply | None] = lambda asked: None, delay_s: float = 0.0
    ) -> None:
        self.reply = reply
        self.delay_s = delay_s
        self.asked: list[Asked] = []
        self.most_at_a_time = 0
        self._now = 0
        self._times: Counter[tuple[str, int | None]] = Counter()
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self) -> "FakeEndpoint":
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    async def _serve(self) -> None:
        connections: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._converse(reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self._port: int = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests of one connection, one after the other, until it is closed."""
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._one(reader, writer):
                    pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
        }
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        asked = Asked(head[0].split()[1], headers, body, 0)
        self._times[asked.sample] += 1
        asked = Asked(asked.path, headers, body, self._times[asked.sample])
        self.asked.append(asked)
        self._now += 1
        self.most_at_a_time = max(self.most_at_a_time, self._now)
        try:
            await asyncio.sleep(self.delay_s)
            reply = self.reply(asked) or Reply(body=json.dumps(answer(asked)).encode())
            if reply.behaviour == "hang":
                await asyncio.Event().wait()
        finally:
            self._now -= 1
        _write(writer, reply)
        await writer.drain()
        return reply.behaviour != "cut"


def _write(writer: asyncio.StreamWriter, reply: Reply) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": str(len(reply.body)), **reply.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Other')}\r\n{head}\r\n".encode())
    writer.write(reply.body[: len(reply.body) // 2] if reply.behaviour == "cut" else reply.body)
