"""With one slot and everything waiting before it is free, requests start in the order of the policy."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from support.messages import inference
from support.server_process import Connection, StartServer
from support.slots import occupied
from support.submit_stream import History, SubmitStream

ONE_SLOT = ("--replay", "--max-sequences", "1", "--time-scale", "10")


@dataclass(slots=True, frozen=True)
class Job:
    """A request of the tests, and all that a policy may look at."""

    id: str
    arrival: int
    words: int
    output: int
    priority: int


def jobs() -> list[Job]:
    """In the order of their arrival. No two have the same number of words, or the same output length."""
    draw = random.Random(7)
    words, outputs = draw.sample(range(2, 50), 30), draw.sample(range(1, 31), 30)
    return [Job(f"j{n}", n, words[n], outputs[n], draw.choice([-1, 0, 5])) for n in range(30)]


async def run(server_address: str) -> History:
    """Submits all jobs while the only slot is taken, then frees it."""
    async with Connection(server_address) as connection, SubmitStream(connection.scheduler) as stream:
        async with occupied(connection):
            for job in jobs():
                request = inference(job.id, words=job.words, output=job.output, priority=job.priority)
                await stream.send(request)
                # Whether it is scored alone or with others, the first comes first.
                await stream.until_all("queued", [job.id])
            # Longer than the shortest bound on waiting that a test sets.
            await asyncio.sleep(0.05)
        return await stream.finish()


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (["--policy", "fcfs"], lambda job: job.arrival),
        (["--policy", "ranking"], lambda job: job.words),
        (["--policy", "sjf"], lambda job: job.output),
        # Its credit for waiting outweighs any predicted length: aged to the utmost, ranking is FCFS.
        (["--policy", "aged_ranking", "--ageing-tokens-per-s", "1e9"], lambda job: job.arrival),
        (["--policy", "ranking", "--max-wait-ms", "1"], lambda job: job.arrival),
    ],
    ids=["fcfs", "ranking", "sjf", "aged_ranking", "ranking with everybody due"],
)
async def test_requests_start_in_the_order_of_the_policy(
    start_server: StartServer, options: list[str], key: Callable[[Job], float]
) -> None:
    server = start_server(*ONE_SLOT, *options)
    history = await run(server.address)
    expected = [job.id for job in sorted(jobs(), key=lambda job: (job.priority, key(job)))]
    assert history.order_of("finished") == expected
    starts = [history.result(request_id) for request_id in expected]
    moments = [r.timing.accept_time.ToNanoseconds() / 1e9 + r.timing.scheduled_s for r in starts]
    assert moments == sorted(moments)
    assert {result.policy for result in starts} == {options[1]}
    due = "--max-wait-ms" in options
    # Of those due, whom the policy would have started next anyway was not brought forward.
    assert any(result.promoted for result in starts) == due
    if not due:
        waiting: list[Job] = []
        for job in jobs():
            ahead = [other for other in waiting if (other.priority, key(other)) < (job.priority, key(job))]
            assert history.queued(job.id).place == len(ahead)
            waiting.append(job)
