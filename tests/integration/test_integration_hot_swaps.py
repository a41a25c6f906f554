"""A hundred ranker versions in a row under load: no call fails, no answer mixes two, no request is lost.

`longest/1` scores a prompt of n tokens n, `shortest/1` scores it -n: a score tells which version gave it.
"""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from support.messages import PROMPT_MARKER, inference
from support.server_process import Connection, StartServer
from support.slots import occupied
from support.submit_stream import SubmitStream
from support.toy_ranker import publish

from rankserve.v1 import ranker_pb2 as pb

SWAPS = 100
SIGNS = {"longest/1": 1, "shortest/1": -1}
# Held open while the first swaps happen, so that some requests certainly wait through one.
SWAPS_WHILE_ALL_WAIT = 4
IN_FLIGHT = 40


@pytest.fixture
def two_versions(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    for reference, sign in SIGNS.items():
        publish(path, reference.split("/")[0], 1, weight=sign, neutral_score=0.0, max_length=64)
    return path


async def test_a_hundred_swaps_under_load_fail_and_mix_nothing(
    start_server: StartServer, two_versions: Path
) -> None:
    options = ("--replay", "--policy", "ranking", "--max-sequences", "8", "--ranker", "shortest")
    server = start_server(*options, repository=two_versions)
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        done = asyncio.Event()
        words: dict[str, int] = {}
        answered: Counter[str] = Counter()
        callers = [
            asyncio.create_task(_until(done, partial(_score, connection, random.Random(n), answered)))
            for n in range(3)
        ]
        submitter = asyncio.create_task(_until(done, partial(_submit, stream, words)))
        swapped = await _swap(connection, stream, words)
        done.set()
        await asyncio.gather(submitter, *callers)
        history = await stream.finish()
        stats = await connection.until_idle()

    assert len(swapped) == SWAPS
    assert sum(response.rescored for response in swapped) > 0
    assert set(answered) == set(SIGNS)
    for request_id, count in words.items():
        for told in (history.queued(request_id), history.result(request_id)):
            # Without a version it is a neutral score: it started before it was scored.
            expected = SIGNS[told.ranker_version] * (1 + count) if told.ranker_version else 0
            assert told.score == expected, f"{request_id} of {count} words: {told}"
        assert history.result(request_id).output_tokens == 3
    # With those that held the slots.
    assert stats.finished_total + stats.cancelled_total == len(words) + stats.max_sequences
    assert stats.finished_total >= len(words)
    assert (stats.failed_total, stats.neutral_scores_total) == (0, 0)


async def _swap(
    connection: Connection, stream: SubmitStream, words: dict[str, int]
) -> list[pb.ActivateRankerVersionResponse]:
    names = itertools.cycle(reference.split("/")[0] for reference in SIGNS)
    responses = []

    async def swap(times: int) -> None:
        for name in itertools.islice(names, times):
            request = pb.ActivateRankerVersionRequest(name=name, version=1)
            response = await connection.ranker.ActivateRankerVersion(request)
            assert (response.active.name, response.active.active) == (name, True)
            responses.append(response)

    async with occupied(connection):
        await stream.until(lambda history: len(history.ids_with["queued"]) >= IN_FLIGHT // 2)
        await swap(SWAPS_WHILE_ALL_WAIT)
    await swap(SWAPS - SWAPS_WHILE_ALL_WAIT)
    return responses


async def _score(connection: Connection, generator: random.Random, answered: Counter[str]) -> None:
    counts = [generator.randint(1, 40) for _ in range(generator.randint(1, 16))]
    prompts = [" ".join([PROMPT_MARKER, *["one"] * (count - 1)]) for count in counts]
    response = await connection.ranker.Score(pb.ScoreRequest(prompts=prompts))
    sign = SIGNS[response.ranker_version]
    assert [score.score for score in response.scores] == [sign * (1 + count) for count in counts]
    answered[response.ranker_version] += 1


async def _submit(stream: SubmitStream, words: dict[str, int]) -> None:
    request_id = f"r{len(words)}"
    words[request_id] = 1 + len(words) % 40
    await stream.send(inference(request_id, words=words[request_id], output=3))
    await stream.until(lambda history: len(words) - len(history.ended) < IN_FLIGHT)


async def _until(done: asyncio.Event, act: Callable[[], Awaitable[None]]) -> None:
    while not done.is_set():
        await act()
