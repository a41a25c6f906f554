"""A dispatcher that drives real HTTP endpoints, in the event loop of a test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import cast

from support.messages import inference
from support.paced_journal import IdleRanker

from rankserve.server.dispatcher import Dispatcher
from rankserve.server.engines.contract import EngineSettings
from rankserve.server.engines.openai.engine import OpenAIEngine
from rankserve.server.events import Event, EventStream, Failed, Finished, Tokens
from rankserve.server.ranking.ranker import Ranker
from rankserve.server.rpc.validation import to_spec
from rankserve.server.scheduling.by_model import Schedulers
from rankserve.server.scheduling.policies import make_policy
from rankserve.server.scheduling.scheduler import SchedulerSettings
from rankserve.server.settings import ServerSettings


class Answered:
    """What a client was told of one request, judged as it comes: no token repeated, none left out."""

    def __init__(self) -> None:
        self.text = ""
        self.tokens = 0
        self.end: Finished | Failed | None = None

    def add(self, event: Event) -> None:
        assert self.end is None, "something came after the end"
        if isinstance(event, Tokens):
            assert event.offset == self.tokens, "a token is missing, or there twice"
            self.tokens += event.count
            self.text += event.text
        elif isinstance(event, Finished | Failed):
            self.end = event


class ServedLLM:
    """Submits, and keeps what comes back."""

    def __init__(self, engine: OpenAIEngine, scheduler: SchedulerSettings | None = None) -> None:
        self.engine = engine
        self.dispatcher = Dispatcher(
            Schedulers(make_policy("fcfs"), scheduler),
            engine,
            cast(Ranker, IdleRanker()),
            ServerSettings(),
        )
        self.answers: dict[str, Answered] = {}
        self._stream = EventStream()

    def submit(self, request_id: str, **fields: object) -> None:
        message = inference(request_id, output=None, **{"max_tokens": 1000, **fields})  # type: ignore[arg-type]
        self.answers[request_id] = Answered()
        self.dispatcher.submit(to_spec(message, max_prompt_bytes=10**6, replay=False), self._stream)

    async def until_tokens(self, request_id: str, tokens: int) -> None:
        while self.answers[request_id].tokens < tokens:
            await self.take()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Looks again and again, and at the stream as well."""
        while not condition():
            with suppress(TimeoutError):
                await asyncio.wait_for(self.take(), 0.02)

    async def until_ended(self, *request_ids: str) -> None:
        """All requests, or these."""
        while any(self.answers[request_id].end is None for request_id in request_ids or self.answers):
            await self.take()

    async def take(self) -> None:
        for event in await self._stream.take():
            self.answers[event.request_id].add(event)

    def finished(self, request_id: str) -> Finished:
        end = self.answers[request_id].end
        assert isinstance(end, Finished), end
        return end

    def failed(self, request_id: str) -> Failed:
        end = self.answers[request_id].end
        assert isinstance(end, Failed), end
        return end


@asynccontextmanager
async def served(
    *urls: str, scheduler: SchedulerSettings | None = None, within_s: float = 60, **settings: object
) -> AsyncIterator[ServedLLM]:
    """A running server of these endpoints; at its end nothing may be left running."""
    engine = OpenAIEngine(EngineSettings(endpoint_urls=",".join(urls), **settings))  # type: ignore[arg-type]
    await engine.prepare()
    llm = ServedLLM(engine, scheduler)
    running = asyncio.create_task(llm.dispatcher.run_engine())
    try:
        async with asyncio.timeout(within_s):
            yield llm
        llm.dispatcher.scheduler.check_integrity()
        assert not any(endpoint.in_flight for endpoint in engine.endpoints)
    finally:
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled(), running.exception()
