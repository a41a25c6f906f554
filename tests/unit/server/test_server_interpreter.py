"""What the server does about objects that refer to themselves."""

import asyncio
import gc
import threading
import weakref
from contextlib import suppress

import pytest

from rankserve.server import interpreter
from rankserve.server.interpreter import collect_cycles, make_room_for_lookups


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.mark.parametrize(("requests", "freed"), [(0, True), (10**6, False)])
async def test_cycles_are_freed_unless_that_would_stop_a_server_that_is_full(
    monkeypatch: pytest.MonkeyPatch, requests: int, freed: bool
) -> None:
    monkeypatch.setattr(interpreter, "_COLLECT_EVERY_S", 0.01)
    gc.disable()
    try:
        cycle = weakref.ref(Cycle())
        with suppress(TimeoutError):
            await asyncio.wait_for(collect_cycles(lambda: requests), 0.2)
        assert (cycle() is None) == freed
    finally:
        gc.enable()


async def test_names_that_nobody_answers_for_do_not_keep_others_from_being_looked_up() -> None:
    loop = asyncio.get_running_loop()
    make_room_for_lookups(loop)
    answered = threading.Event()
    stuck = [loop.run_in_executor(None, answered.wait) for _ in range(48)]
    try:
        await asyncio.wait_for(loop.getaddrinfo("127.0.0.1", 80), 5)
    finally:
        answered.set()
        await asyncio.gather(*stuck)
