"""A fake engine as a process of its own."""

import asyncio
import signal
from collections.abc import Callable

from rankserve.server.engines.fake.engine import FakeEngine
from rankserve.server.engines.fake.settings import FakeEngineSettings


async def serve_until_signal(
    settings: FakeEngineSettings, on_listening: Callable[[FakeEngine], None]
) -> None:
    """Returns after SIGTERM or SIGINT, when nothing listens any more.

    Args:
        settings: of the engine.
        on_listening: called once it listens.

    Raises:
        OSError: the address cannot be bound.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with FakeEngine(settings) as engine:
        on_listening(engine)
        await stop.wait()
