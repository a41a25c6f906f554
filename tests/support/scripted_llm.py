"""An endpoint that answers exactly what a test says, right or wrong."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

EVENTS = "text/event-stream"


def event(data: object) -> bytes:
    return b"data: %s\n\n" % (data if isinstance(data, bytes) else json.dumps(data).encode())


def text(piece: str, finish_reason: str | None = None, **fields: object) -> bytes:
    """A chunk of a text completion."""
    return event({"choices": [{"index": 0, "text": piece, "finish_reason": finish_reason}], **fields})


def delta(piece: str, finish_reason: str | None = None) -> bytes:
    """A chunk of a chat completion."""
    return event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": finish_reason}]})


def usage(prompt_tokens: int, completion_tokens: int) -> bytes:
    counts = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return event({"choices": [], "usage": counts})


DONE = event(b"[DONE]")


@dataclass(slots=True)
class Asked:
    """A request: what it sent and how to answer it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    writer: asyncio.StreamWriter

    async def send(self, *parts: bytes, status: str = "200 OK", **headers: str) -> None:
        """A whole response, which ends with the connection."""
        await self.begin(status, **headers)
        for part in parts:
            await self.write(part)

    async def begin(self, status: str = "200 OK", **headers: str) -> None:
        lines = {"content-type": EVENTS, "connection": "close"}
        lines.update({name.replace("_", "-"): value for name, value in headers.items()})
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await self.write(f"HTTP/1.1 {status}\r\n{head}\r\n".encode())

    async def write(self, part: bytes) -> None:
        self.writer.write(part)
        await self.writer.drain()


Answer = Callable[[Asked], Awaitable[None]]


@dataclass(slots=True)
class ScriptedLLM:
    """What it was asked, and what may be changed while it runs.

    Attributes:
        answer: to completions.
        get: to paths that it has more to say of than that it is well.
    """

    base_url: str
    answer: Answer
    get: dict[str, Answer]
    model: str = "scripted"
    owned_by: str = "scripted"
    max_model_len: int | None = None
    asked: list[Asked] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            sent = await reader.readexactly(int(headers.get("content-length", 0)))
            asked = Asked(path, headers, json.loads(sent) if sent else {}, writer)
            if method == "POST":
                self.asked.append(asked)
                await self.answer(asked)
            elif path in self.get:
                await self.get[path](asked)
            else:
                model = {"id": self.model, "owned_by": self.owned_by, "max_model_len": self.max_model_len}
                said = json.dumps({"data": [model]})
                await asked.send(said.encode(), content_type="application/json")
        writer.close()


@asynccontextmanager
async def scripted(answer: Answer, **settings: Any) -> AsyncIterator[ScriptedLLM]:
    llm = ScriptedLLM("", answer, settings.pop("get", {}), **settings)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(llm.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    llm.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield llm
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
