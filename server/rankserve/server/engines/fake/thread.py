"""A fake engine for tests without an event loop of their own."""

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from rankserve.server.engines.fake.engine import FakeEngine
from rankserve.server.engines.fake.records import RequestRecord
from rankserve.server.engines.fake.settings import FakeEngineSettings

_Result = TypeVar("_Result")


class FakeEngineThread:
    """A fake engine in a thread and event loop of its own; a context manager::

        with FakeEngineThread(FakeEngineSettings(ttft_s=0)) as engine:
            client = openai.OpenAI(base_url=engine.base_url, api_key="none")

    Args:
        settings: how it behaves.
    """

    def __init__(self, settings: FakeEngineSettings | None = None) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-engine", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._engine = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._engine.aclose(), self._loop).result()
        self._stop()

    @property
    def url(self) -> str:
        """Its root, for /health, /metrics, /tokenize, /requests and /faults."""
        return self._engine.url

    @property
    def base_url(self) -> str:
        """What clients of OpenAI's API are given."""
        return self._engine.base_url

    @property
    def requests(self) -> list[RequestRecord]:
        """What it was asked so far."""
        return self.call(lambda engine: list(engine.requests))

    def call(self, function: Callable[[FakeEngine], _Result]) -> _Result:
        """Calls a function with the engine, in its thread: ``call(lambda e: e.faults.set("error", ...))``."""

        async def within() -> _Result:
            return function(self._engine)

        return asyncio.run_coroutine_threadsafe(within(), self._loop).result()

    async def _start(self) -> FakeEngine:
        engine = FakeEngine(self._settings)
        await engine.start()
        return engine

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
