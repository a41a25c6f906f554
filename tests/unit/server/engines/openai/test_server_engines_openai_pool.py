"""Several endpoints: who gets what, who goes, who comes back."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from support.served_llm import ServedLLM, served

from rankserve.server import watched_files
from rankserve.server.engines.fake import FakeEngine, FakeEngineSettings
from rankserve.server.engines.openai.breaker import Circuit

STEADY = {"ttft_s": 0.0, "itl_s": 0.002, "mean_output_tokens": 20.0, "sigma_output_tokens": 0.0}


def fake(**settings: object) -> FakeEngine:
    return FakeEngine(FakeEngineSettings(**{**STEADY, **settings}))  # type: ignore[arg-type]


def pool_file(path: Path, *tables: str) -> Path:
    path.write_text("".join(f"[[endpoint]]\n{table}\n" for table in tables))
    return path


def url(engine: FakeEngine) -> str:
    return f'url = "{engine.base_url}"'


async def answer(server: ServedLLM, count: int, name: str = "r") -> None:
    for number in range(count):
        server.submit(f"{name}{number}", words=number % 7 + 2)
    await server.until_ended()
    for request_id in server.answers:
        server.finished(request_id)


async def test_a_burst_is_spread_over_all_that_have_room() -> None:
    async with fake() as one, fake() as two, served(one.base_url, two.base_url, max_sequences=4) as server:
        await answer(server, 40)
        assert len(one.requests) + len(two.requests) == 40
        assert min(len(one.requests), len(two.requests)) >= 15


async def test_weight_says_how_much_each_takes(tmp_path: Path) -> None:
    async with fake() as heavy, fake() as light:
        path = pool_file(
            tmp_path / "pool.toml",
            f"{url(heavy)}\nweight = 3.0\nmax_sequences = 1000",
            f"{url(light)}\nmax_sequences = 1000",
        )
        async with served(endpoint_file=path) as server:
            await answer(server, 40)
            assert 28 <= len(heavy.requests) <= 32


async def test_the_order_is_one_for_the_whole_pool() -> None:
    async with fake() as one, fake() as two, served(one.base_url, two.base_url, max_sequences=1) as server:
        for number in range(20):
            server.submit(f"r{number}", words=number + 2)
        await server.until_ended()
        records = sorted([*one.requests, *two.requests], key=lambda record: record.arrival_s)
        words = [len(record.body["prompt"].split()) for record in records]
        # Two that start together may arrive in either order.
        assert all(later >= earlier - 1 for earlier, later in pairwise(words))


async def test_models_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async with fake(models=("slow",), itl_s=3600.0) as slow, fake(models=("quick",)) as quick:
        tables = [f"{url(engine)}\nmax_sequences = 1" for engine in (slow, quick)]
        async with served(endpoint_file=pool_file(tmp_path / "pool.toml", *tables)) as server:
            assert server.engine.models == ("slow", "quick")
            for number in range(5):
                server.submit(f"slow{number}", model="slow")
                server.submit(f"none{number}")
            for number in range(5):
                server.submit(f"quick{number}", model="quick")
            await server.until_ended(*(f"quick{number}" for number in range(5)))
            assert len(quick.requests) == 5
            assert server.dispatcher.scheduler.waiting_for("") == 9
            server.dispatcher.scheduler.check_integrity()
            for number in range(5):
                server.dispatcher.cancel(f"slow{number}")
                server.dispatcher.cancel(f"none{number}")
            assert len(slow.requests) == 1


async def test_who_is_gone_gets_nothing_and_loses_nothing_until_it_is_back() -> None:
    async with AsyncExitStack() as stack:
        stays = await stack.enter_async_context(fake())
        goes = fake()
        await goes.start()
        server = await stack.enter_async_context(served(stays.base_url, goes.base_url, max_sequences=4))
        for number in range(30):
            server.submit(f"r{number}", words=number + 2)
        while not goes.running:
            await server.take()
        await goes.aclose()
        await server.until_ended()
        for request_id in server.answers:
            server.finished(request_id)
        gone = next(e for e in server.engine.endpoints if e.url == goes.base_url)
        assert gone.breaker.state is Circuit.OPEN
        back = await stack.enter_async_context(fake(port=goes.port))
        async with asyncio.timeout(5):
            while gone.breaker.state is Circuit.OPEN:
                await asyncio.sleep(0.01)
        await answer(server, 30, "again")
        assert len(back.requests) > 5
        assert gone.breaker.state is Circuit.CLOSED


async def test_one_that_says_it_is_unwell_is_left_alone() -> None:
    async with fake() as well, fake() as unwell, served(well.base_url, unwell.base_url) as server:
        unwell.healthy = False
        endpoint = next(e for e in server.engine.endpoints if e.url == unwell.base_url)
        while endpoint.breaker.state is Circuit.CLOSED:
            await asyncio.sleep(0.01)
        before = len(unwell.requests)
        await answer(server, 20)
        assert len(unwell.requests) <= before + 1


async def test_the_file_adds_and_removes_while_requests_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_files, "INTERVAL_S", 0.01)
    async with fake() as old, fake() as new:
        path = pool_file(tmp_path / "pool.toml", f"{url(old)}\nmax_sequences = 4")
        async with served(endpoint_file=path) as server:
            for number in range(20):
                server.submit(f"r{number}", words=number + 2)
            while not old.running:
                await server.take()
            pool_file(path, f"{url(new)}\nmax_sequences = 4")
            await server.until_ended()
            assert [endpoint.url for endpoint in server.engine.endpoints] == [new.base_url]
            assert not Counter(record.outcome for record in old.requests)["aborted"]
            path.write_text("nonsense")
            await asyncio.sleep(0.1)
            await answer(server, 5, "later")
            assert len(old.requests) + len(new.requests) == 25


async def test_an_endpoint_may_come_after_the_server(tmp_path: Path) -> None:
    async with fake() as first:
        later = fake()
        await later.start()
        port = later.port
        await later.aclose()
        async with served(first.base_url, f"http://127.0.0.1:{port}/v1", max_sequences=2) as server:
            await answer(server, 4)
            async with fake(port=port) as back:
                while server.engine.endpoints[1].breaker.state is Circuit.OPEN:
                    await asyncio.sleep(0.01)
                await answer(server, 20, "again")
                assert len(back.requests) > 3
