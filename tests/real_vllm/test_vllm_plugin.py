"""RankServe within a real vLLM: who gets the first token first.

Run with `VLLM_PYTHON=.../bin/python pytest tests/real_vllm -s`; see `support.vllm_server`. Batches are of two
sequences. One is taken for good, the other until all requests wait; then they start one by one.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.toy_ranker import publish
from support.vllm_server import MODEL, PYTHON, VllmServer, make_model, running_vllm, vllm_process

pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="VLLM_PYTHON names no vLLM"),
    pytest.mark.timeout(900),
]

REQUESTS = 24
MIDDLEWARE = ("--middleware", "rankserve.vllm.ScoreMiddleware")
SCHEDULER = ("--scheduler-cls", "rankserve.vllm.RankedScheduler")
# Long enough for requests that keep the batch full while others are sent, however slow the machine is.
LONG = ("--max-model-len", "32768")
# A late score is a neutral one, which is another order.
PATIENCE_MS = "60000"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ranker for which a prompt of n words has the score -n - 1."""
    folder = tmp_path_factory.mktemp("repository")
    publish(folder, max_length=64)
    return folder


@pytest.fixture(scope="module")
def ranked(model: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """vLLM with our scheduler and our middleware."""
    with running_vllm(
        model,
        tmp_path_factory.mktemp("ranked"),
        *SCHEDULER,
        *MIDDLEWARE,
        *LONG,
        RANKSERVE_VLLM_POLICY="ranking",
        RANKSERVE_VLLM_RANKER_TIMEOUT_MS=PATIENCE_MS,
        RANKSERVE_VLLM_REPOSITORY=str(repository),
    ) as server:
        yield server


def body_of(words: int, **fields: Any) -> dict[str, Any]:
    prompt = " ".join(["one"] * words)
    return {"model": MODEL, "prompt": prompt, "max_tokens": 4, "ignore_eos": True, "stream": True, **fields}


async def stream(
    client: httpx2.AsyncClient, body: dict[str, Any], path: str = "/v1/completions"
) -> AsyncIterator[None]:
    """Something for each event that has a token."""
    async with client.stream("POST", path, json=body) as response:
        if response.status_code != 200:
            raise AssertionError(f"{response.status_code}: {(await response.aread()).decode()}")
        async for line in response.aiter_lines():
            if line.startswith("data: {") and '"role":"assistant"' not in line.replace(" ", ""):
                yield None


@asynccontextmanager
async def client_of(address: str) -> AsyncIterator[httpx2.AsyncClient]:
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=address, timeout=120, limits=limits) as client:
        yield client


async def begun(tokens: AsyncIterator[None]) -> asyncio.Task[None]:
    """A task that reads the rest, once there is a first token."""
    await anext(tokens)

    async def read_on() -> None:
        async for _ in tokens:
            pass

    return asyncio.create_task(read_on())


async def until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.05)


async def stop(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def order_of_first_tokens(
    server: VllmServer,
    bodies: Sequence[dict[str, Any]],
    *,
    path: str = "/v1/completions",
    address: str = "",
    while_waiting: Callable[[list[asyncio.Task[None]]], Awaitable[None]] | None = None,
) -> list[int]:
    """The places in `bodies` in the order in which they got their first token.

    Args:
        server: an idle one.
        bodies: sent one after another, in this order, while the batch is full.
        path: where to.
        address: of a proxy to send through.
        while_waiting: done once all of them wait.
    """
    order: list[int] = []
    async with client_of(address or server.url) as client:
        blockers = [await begun(stream(client, body_of(1, max_tokens=30_000))) for _ in range(2)]

        async def ask(place: int) -> None:
            first = True
            async for _ in stream(client, bodies[place], path):
                if first:
                    order.append(place)
                first = False

        tasks: list[asyncio.Task[None]] = []
        for place in range(len(bodies)):
            tasks.append(asyncio.create_task(ask(place)))
            await until(lambda: server.gauge("num_requests_waiting") >= len(tasks))
        assert not order, "nothing may start while the batch is full"
        if while_waiting is not None:
            await while_waiting(tasks)
        await stop(blockers[0])
        await asyncio.gather(*tasks, return_exceptions=True)
        failed = [task.exception() for task in tasks if not task.cancelled() and task.exception()]
        assert not failed, failed
        assert not blockers[1].done(), "the other place of the batch must stay taken"
        await stop(blockers[1])
    await until(lambda: server.gauge("num_requests_running") + server.gauge("num_requests_waiting") == 0)
    return order


def shuffled(seed: int) -> list[int]:
    """Numbers of words, all different: the fewer, the higher the score."""
    words = list(range(2, 2 + REQUESTS))
    random.Random(seed).shuffle(words)
    return words


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_scheduler_class_starts_requests_in_the_order_of_their_scores(
    ranked: VllmServer, seed: int
) -> None:
    words = shuffled(seed)
    order = await order_of_first_tokens(ranked, [body_of(number) for number in words])
    print(f"\nseed {seed}: sent {words}\n  first tokens {[words[place] for place in order]}")
    assert [words[place] for place in order] == sorted(words)


async def test_what_clients_say_of_their_own_order_does_not_count(ranked: VllmServer) -> None:
    words = shuffled(4)[:8]
    bodies = [
        body_of(number, priority=-number, vllm_xargs={"rankserve_score": 1000.0 + number}) for number in words
    ]
    order = await order_of_first_tokens(ranked, bodies)
    assert [words[place] for place in order] == sorted(words)


async def test_chats_are_ordered_by_their_last_user_turn(ranked: VllmServer) -> None:
    words = shuffled(5)[:8]
    bodies = [
        {
            **{name: value for name, value in body_of(1).items() if name != "prompt"},
            "messages": [{"role": "user", "content": " ".join(["one"] * number)}],
        }
        for number in words
    ]
    order = await order_of_first_tokens(ranked, bodies, path="/v1/chat/completions")
    assert [words[place] for place in order] == sorted(words)


async def test_requests_that_cannot_be_scored_get_the_middle_and_keep_their_order(ranked: VllmServer) -> None:
    """Prompts of token ids get the neutral score, that of a prompt of four words."""
    bodies = [body_of(2), body_of(20), *(body_of(1, prompt=[5, 6, 7]) for _ in range(3))]
    assert await order_of_first_tokens(ranked, bodies) == [0, 2, 3, 4, 1]


async def test_a_waiting_request_can_be_aborted(ranked: VllmServer) -> None:
    words = shuffled(6)
    gone = [3, 4, 10, 17, 21, 23]

    async def abort(tasks: list[asyncio.Task[None]]) -> None:
        for place in gone:
            await stop(tasks[place])
        await until(lambda: ranked.gauge("num_requests_waiting") == REQUESTS - len(gone))

    order = await order_of_first_tokens(ranked, [body_of(number) for number in words], while_waiting=abort)
    left = sorted(number for place, number in enumerate(words) if place not in gone)
    assert [words[place] for place in order] == left


@asynccontextmanager
async def proxy_before(server: VllmServer, *arguments: str) -> AsyncIterator[str]:
    """`rankserve proxy` as a process; its address."""
    program = ("-c", "from rankserve.cli.main import app; app()", "proxy", "--upstream", server.url)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *program, "--port", "0", "--json", *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    listening = json.loads(await process.stdout.readline())
    try:
        yield f"http://{listening['address']}"
    finally:
        process.terminate()
        assert await process.wait() == 0


async def test_the_proxy_before_a_vllm_that_knows_nothing_of_us(
    model: Path, repository: Path, tmp_path: Path
) -> None:
    with running_vllm(model, tmp_path, "--scheduling-policy", "priority", *LONG) as server:
        ranker = ("--policy", "ranking", "--repository", str(repository), "--ranker-timeout-ms", PATIENCE_MS)
        async with proxy_before(server, *ranker) as address:
            for seed in (1, 2, 3):
                words = shuffled(seed)
                bodies = [body_of(number) for number in words]
                order = await order_of_first_tokens(server, bodies, address=address)
                print(f"\nseed {seed}: sent {words}\n  first tokens {[words[place] for place in order]}")
                assert [words[place] for place in order] == sorted(words)


@pytest.mark.parametrize("scheduling", ["--async-scheduling", "--no-async-scheduling"])
async def test_nothing_is_lost_when_kv_blocks_run_out(
    model: Path, repository: Path, tmp_path: Path, scheduling: str
) -> None:
    """By the default policy, with every bound on; each request gets as many tokens as it asked for."""
    room = ("--num-gpu-blocks-override", "24", "--max-model-len", "2048", scheduling)
    with running_vllm(
        model,
        tmp_path,
        *SCHEDULER,
        *MIDDLEWARE,
        *room,
        max_sequences=4,
        RANKSERVE_VLLM_REPOSITORY=str(repository),
        RANKSERVE_VLLM_MAX_WAIT_MS="5000",
        RANKSERVE_VLLM_STARVATION_THRESHOLD_STEPS="1000",
        RANKSERVE_VLLM_TENANT_FROM="user",
    ) as server:
        draw = random.Random(7)
        lengths = [draw.choice((20, 300, 1500)) for _ in range(24)]

        async def ask(client: httpx2.AsyncClient, n: int) -> int:
            await asyncio.sleep(n * 0.05)
            body = body_of(1 + n % 9, max_tokens=lengths[n], user=f"tenant{n % 3}", stream=False)
            if n % 7 == 6:
                # Some clients go away, wherever their request is by then.
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await client.post("/v1/completions", json=body)
                return lengths[n]
            answer = (await client.post("/v1/completions", json=body)).json()
            return int(answer["usage"]["completion_tokens"])

        async with client_of(server.url) as client:
            counts = await asyncio.gather(*(ask(client, n) for n in range(len(lengths))))
        assert counts == lengths
        preemptions = server.gauge("num_preemptions_total")
        print(f"\n{scheduling}: {len(lengths)} requests, {preemptions:.0f} preemptions")
        assert preemptions > 0
        await until(lambda: server.gauge("num_requests_running") + server.gauge("num_requests_waiting") == 0)
        printed = server.printed()
    assert "RankServe orders the waiting requests: policy bounded_ranking" in printed
    assert "Traceback" not in printed


async def test_priority_mode_needs_no_scheduler_class(model: Path, repository: Path, tmp_path: Path) -> None:
    with running_vllm(
        model,
        tmp_path,
        "--scheduling-policy",
        "priority",
        *MIDDLEWARE,
        *LONG,
        RANKSERVE_VLLM_MODE="priority",
        RANKSERVE_VLLM_POLICY="ranking",
        RANKSERVE_VLLM_RANKER_TIMEOUT_MS=PATIENCE_MS,
        RANKSERVE_VLLM_REPOSITORY=str(repository),
    ) as server:
        for seed in (1, 2, 3):
            words = shuffled(seed)
            # What clients say does not count here either.
            order = await order_of_first_tokens(
                server, [body_of(number, priority=-number) for number in words]
            )
            print(f"\nseed {seed}: sent {words}\n  first tokens {[words[place] for place in order]}")
            assert [words[place] for place in order] == sorted(words)


def test_a_version_that_was_not_tested_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "another_version.py").write_text(
        "import vllm\nvllm.__version__ = '0.99.0'\nfrom rankserve.vllm.scheduler import RankedScheduler\n"
    )
    with vllm_process(model, tmp_path, "--scheduler-cls", "another_version.RankedScheduler") as server:
        assert server.process.wait(400) != 0
        printed = server.printed()
    message = next(line for line in printed.splitlines() if "UnsupportedVllmError: " in line)
    print("\n" + message)
    assert "was tested with vLLM 0.32.0, and this is vLLM 0.99.0" in message
    assert "RANKSERVE_VLLM_ALLOW_UNTESTED=1" in message
    assert "--scheduling-policy priority" in message


def test_a_ranker_that_is_not_there_keeps_the_server_from_starting(model: Path, tmp_path: Path) -> None:
    with vllm_process(
        model, tmp_path, *SCHEDULER, *MIDDLEWARE, RANKSERVE_VLLM_REPOSITORY=str(tmp_path / "nowhere")
    ) as server:
        server.process.wait(400)
        printed = server.printed()
    print("\n" + next(line for line in printed.splitlines() if "rankserve: " in line))
    assert "nowhere" in printed
