"""The engine that drives servers of the OpenAI API, against a real vLLM.

Run by `make vllm-check`; see `support.vllm_server`.
"""

import asyncio
import math
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from support.served_llm import ServedLLM, served
from support.vllm_server import MODEL, PYTHON, VllmServer, make_model, running_vllm

from rankserve.server.engines.openai.breaker import Circuit
from rankserve.server.scheduling.preemption import Preemption
from rankserve.server.scheduling.scheduler import SchedulerSettings
from rankserve.v1 import scheduler_pb2 as pb

pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="VLLM_PYTHON names no vLLM"),
    pytest.mark.timeout(900),
]

BATCH = 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def vllm(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """Two slots, and a queue by priority."""
    folder = tmp_path_factory.mktemp("vllm")
    with running_vllm(model, folder, "--scheduling-policy", "priority", max_sequences=BATCH) as server:
        yield server


def base_url(server: VllmServer) -> str:
    return f"{server.url}/v1"


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> float:
    """Seconds that it took. To ask vLLM holds up a thread, not what is to happen."""
    start_s = time.monotonic()
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < start_s + within_s, "it did not come to that"
        await asyncio.sleep(0.02)
    return time.monotonic() - start_s


def submit(server: ServedLLM, name: str, tokens: int, **fields: object) -> None:
    server.submit(name, max_tokens=tokens, **fields)


def is_at_rest(vllm: VllmServer) -> bool:
    return not vllm.gauge("num_requests_running") and not vllm.gauge("num_requests_waiting")


async def test_it_finds_out_what_it_drives(vllm: VllmServer) -> None:
    async with served(base_url(vllm)) as server:
        (endpoint,) = server.engine.endpoints
        assert (endpoint.model, endpoint.dialect.name, endpoint.max_model_len) == (MODEL, "vllm", 4096)


@pytest.mark.parametrize("asked", ["text", "chat"])
async def test_answers_stream_and_tokens_are_those_that_vllm_counts(vllm: VllmServer, asked: str) -> None:
    before = vllm.gauge("generation_tokens_total")
    async with served(base_url(vllm)) as server:
        for number in range(6):
            chat = pb.ChatMessages(messages=[pb.ChatMessage(role="user", content=f"heliotrope {number}")])
            prompt = {"prompt": None, "chat": chat} if asked == "chat" else {"words": number + 2}
            submit(server, f"{asked}{number}", 30, **prompt)
        await server.until_tokens(f"{asked}0", 2)
        assert server.answers[f"{asked}0"].end is None
        await server.until_ended()
        told = sum(answered.tokens for answered in server.answers.values())
        assert told == sum(server.finished(name).output_tokens for name in server.answers)
        assert all(server.finished(name).input_tokens > 0 for name in server.answers)
    await until(lambda: vllm.gauge("generation_tokens_total") == before + told)


async def test_a_cancelled_request_frees_its_slot_in_vllm(vllm: VllmServer) -> None:
    async with served(base_url(vllm), max_sequences=BATCH) as server:
        for name in ("a", "b"):
            submit(server, name, 3000)
        for name in ("a", "b"):
            await server.until_tokens(name, 5)
        # Random weights end an answer at any token.
        answering = [name for name, answered in server.answers.items() if answered.end is None]
        assert answering
        for name in answering:
            server.dispatcher.cancel(name)
        freed_s = await until(lambda: is_at_rest(vllm))
        print(f"\nvLLM's slots were free {freed_s:.2f} s after the cancels")
        assert freed_s < 2
        # Its gauges tell what was so some steps ago; its tokens do not lie.
        await asyncio.sleep(0.2)
        made = vllm.gauge("generation_tokens_total")
        await asyncio.sleep(0.5)
        assert vllm.gauge("generation_tokens_total") == made
        assert is_at_rest(vllm)


async def test_the_order_holds_in_vllm_s_own_queue(vllm: VllmServer) -> None:
    async with served(base_url(vllm), max_sequences=64, engine_priority="lower-first") as server:
        bands = random.Random(1).sample(range(100), 16)
        async with full_batch(vllm):
            for band in bands:
                # Long enough for the first tokens of two to arrive in the order in which they were made.
                submit(server, f"r{band}", 40, priority=band)
            await until(lambda: vllm.gauge("num_requests_waiting") == len(bands))
        await server.until_ended()
        ended = server.dispatcher.registry.ended
        firsts = {band: ended[f"r{band}"].first_token_s or math.inf for band in bands}
        order = sorted(bands, key=lambda band: firsts[band])
        # Two slots may become free in the same step.
        assert all(abs(place - sorted(bands).index(band)) <= 1 for place, band in enumerate(order)), order


@asynccontextmanager
async def full_batch(vllm: VllmServer) -> AsyncIterator[None]:
    """All of vLLM's slots are taken, by requests that are not ours and do not end by themselves."""
    body = {"model": MODEL, "prompt": "on", "max_tokens": 4000, "ignore_eos": True, "stream": True}
    answers: list[AsyncIterator[bytes]] = []
    async with httpx2.AsyncClient(trust_env=False) as client, AsyncExitStack() as taken:
        for _ in range(BATCH):
            asked = client.stream("POST", f"{base_url(vllm)}/completions", json=body)
            response = await taken.enter_async_context(asked)
            # One that is forgotten closes the response.
            answers.append(response.aiter_raw())
            await anext(answers[-1])
        yield


async def test_a_preempted_answer_has_all_its_tokens(vllm: VllmServer) -> None:
    scheduler = SchedulerSettings(preemption=Preemption(enabled=True))
    async with served(base_url(vllm), max_sequences=1, scheduler=scheduler) as server:
        submit(server, "long", 300)
        await server.until_tokens("long", 10)
        submit(server, "urgent", 5, priority=-1)
        await server.until_ended()
        assert server.finished("long").preemptions == 1
        # Random weights end an answer at any token.
        assert 10 < server.finished("long").output_tokens <= 300


async def test_one_of_two_is_killed_and_comes_back(
    vllm: VllmServer, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with running_vllm(model, tmp_path_factory.mktemp("second"), max_sequences=BATCH) as second:
        async with served(base_url(vllm), base_url(second), max_sequences=BATCH, within_s=600) as server:
            dies = next(e for e in server.engine.endpoints if e.url == base_url(second))
            for number in range(12):
                submit(server, f"r{number}", 200, words=number + 2)
            await server.until(lambda: bool(dies.in_flight) and all_have_tokens(server, dies.in_flight))
            begun = set(dies.in_flight)
            killed_s = time.monotonic()
            os.killpg(second.process.pid, signal.SIGKILL)
            opened_s = await until(lambda: dies.breaker.state is Circuit.OPEN)
            await server.until_ended()
            for name in server.answers:
                server.finished(name)
            restarted = {
                name: live for name, live in server.dispatcher.registry.ended.items() if live.request.restarts
            }
            print(f"\ncircuit open after {opened_s:.2f} s; {sorted(begun)} of {sorted(restarted)} had begun")
            assert opened_s < 2
            assert begun <= restarted.keys()
            # Others were turned away before they had begun, while it was not known yet.
            firsts = [live.first_token_s for name, live in restarted.items() if name not in begun]
            assert all(first_s is not None and first_s > killed_s for first_s in firsts)
            port = int(second.url.rpartition(":")[2])
            with running_vllm(model, tmp_path_factory.mktemp("again"), max_sequences=BATCH, port=port):
                healthy_s = time.monotonic()
                for number in range(12):
                    submit(server, f"again{number}", 50, words=number + 2)
                await server.until(lambda: bool(dies.in_flight))
                serves_again_s = time.monotonic() - healthy_s
                await server.until_ended()
                print(f"serves again {serves_again_s:.2f} s after it said it was well")
                assert serves_again_s < 5
                assert dies.breaker.state is Circuit.CLOSED


def all_have_tokens(server: ServedLLM, names: object) -> bool:
    return all(server.answers[name].tokens for name in names)  # type: ignore[attr-defined]
