"""Fake engines whose time a test has in its hands, and who talks to them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai

from rankserve.server.engines.fake import FakeEngine, FakeEngineSettings

MODEL = "fake-model"


class Steps:
    """Lets the steps of an engine's batch happen one by one."""

    def __init__(self) -> None:
        self._allowed = asyncio.Semaphore(0)

    def allow(self, steps: int) -> None:
        for _ in range(steps):
            self._allowed.release()

    async def sleep(self, seconds: float) -> None:
        await self._allowed.acquire()

    def clock(self) -> float:
        return 0.0


def at_once(**settings: Any) -> FakeEngine:
    """An engine that takes no time."""
    return FakeEngine(FakeEngineSettings(ttft_s=0, itl_s=0, **settings))


def by_hand(steps: Steps, **settings: Any) -> FakeEngine:
    """An engine whose steps are the test's."""
    return FakeEngine(FakeEngineSettings(ttft_s=0, itl_s=0, **settings), clock=steps.clock, sleep=steps.sleep)


def openai_client(engine: FakeEngine, api_key: str = "none") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=engine.base_url, api_key=api_key, max_retries=0)


@asynccontextmanager
async def http_client(engine: FakeEngine) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=engine.url, trust_env=False, timeout=20) as client:
        yield client


async def events(response: httpx2.Response) -> AsyncIterator[str]:
    """The data of each server-sent event."""
    async for line in response.aiter_lines():
        if line:
            assert line.startswith("data: ")
            yield line.removeprefix("data: ")


async def streamed(client: httpx2.AsyncClient, path: str, **body: Any) -> list[str]:
    async with client.stream("POST", path, json={"model": MODEL, "stream": True, **body}) as response:
        assert response.status_code == 200
        return [event async for event in events(response)]


def text_of(chunks: list[str]) -> str:
    """Of a text completion, without what is no chunk of it."""
    bodies = [json.loads(chunk) for chunk in chunks if chunk != "[DONE]"]
    return "".join(body["choices"][0]["text"] for body in bodies if body.get("choices"))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)
