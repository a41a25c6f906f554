"""The fake engine, as tests use it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic, time
from types import TracebackType
from typing import Self

from rankserve.server.engines.fake.application import fake_engine_application
from rankserve.server.engines.fake.connection import CuttableConnection
from rankserve.server.engines.fake.core import Core
from rankserve.server.engines.fake.faults import Faults
from rankserve.server.engines.fake.records import RequestRecords
from rankserve.server.engines.fake.settings import FakeEngineSettings
from rankserve.server.http_server import HttpServer


class FakeEngine:
    """An engine without a model that listens on HTTP, in the event loop of whoever opens it::

        async with FakeEngine(FakeEngineSettings(models=("llama",))) as engine:
            client = openai.AsyncOpenAI(base_url=engine.base_url, api_key="none")
            engine.faults.set("cut", next_requests=1)

    Closed, it cuts the connections of the requests it has.

    Args:
        settings: how it behaves.
        clock: monotonic seconds.
        sleep: for some seconds.
        wall_clock: Unix time.
    """

    def __init__(
        self,
        settings: FakeEngineSettings | None = None,
        *,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        wall_clock: Callable[[], float] = time,
    ) -> None:
        self.settings = settings or FakeEngineSettings()
        self._core = Core(self.settings, clock=clock, sleep=sleep, wall_clock=wall_clock)
        self._server: HttpServer | None = None
        self._stepping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def address(self) -> str:
        """HOST:PORT, once it listens."""
        host = self.settings.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def port(self) -> int:
        """Where it listens, once it does; one that follows may be given it."""
        if self._server is None:
            raise RuntimeError("the fake engine has not been started")
        return self._server.port

    @property
    def url(self) -> str:
        """Its root, for /health, /metrics, /tokenize, /requests and /faults."""
        return f"http://{self.address}"

    @property
    def base_url(self) -> str:
        """What clients of OpenAI's API are given."""
        return f"{self.url}/v1"

    @property
    def faults(self) -> Faults:
        """What goes wrong for requests that come from now on."""
        return self._core.faults

    @property
    def requests(self) -> RequestRecords:
        """What it was asked."""
        return self._core.records

    @property
    def running(self) -> int:
        """Requests that run."""
        return len(self._core.batch.running)

    @property
    def waiting(self) -> int:
        """Requests that wait to run."""
        return self._core.batch.waiting

    @property
    def healthy(self) -> bool:
        """Whether /health says so; may be set."""
        return self._core.healthy

    @healthy.setter
    def healthy(self, healthy: bool) -> None:
        self._core.healthy = healthy

    async def start(self) -> None:
        """Listens, and serves from now on.

        Raises:
            OSError: the address cannot be bound.
        """
        self._server = HttpServer(
            fake_engine_application(self._core),
            self.settings.host,
            self.settings.port,
            connection=CuttableConnection,
        )
        self._server.start()
        self._stepping = asyncio.create_task(self._core.stepper.run())

    async def aclose(self) -> None:
        """Cuts what is not answered yet, and returns when nothing listens any more."""
        self._core.closing.set()
        if self._server is not None:
            await self._server.aclose()
        if self._stepping is not None:
            self._stepping.cancel()
            with suppress(asyncio.CancelledError):
                await self._stepping
