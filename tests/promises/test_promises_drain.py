"""Promise: replicas behind client-side balancing restart under load without an error that a client sees.

Each SIGTERM goes to one of two replicas, which ``complete``, ``generate`` and a resilient submit stream keep
busy. 4 SIGTERMs by default, 20 by `make promises`.
"""

import asyncio
import signal
import socket
from collections import Counter
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.promises import FULL
from support.server_process import CHANNEL_OPTIONS, ServerProcess
from support.toy_ranker import publish

from rankserve.client import (
    AsyncSchedulerClient,
    Event,
    Failed,
    Finished,
    RankServeError,
    Request,
    Retry,
    Tokens,
)

RESTARTS = 20 if FULL else 4
CALLERS = 12
# A restart of the other replica may follow at once: a request may meet several servers that leave.
RETRY = Retry(attempts=10)
OPTIONS = ("--replay", "--max-sequences", "8", "--time-scale", "2", "--drain-notice-s", "0.5")
READY_TIMEOUT_S = 60


class Replica:
    """A server on a port of its own, over any number of restarts."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self._folder = folder
        self._repository = repository
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._starts = 0
        self.start()

    def start(self) -> None:
        self._starts += 1
        port = self.address.rpartition(":")[2]
        folder = self._folder / f"start-{self._starts}"
        self.process = ServerProcess(folder, "--port", port, "--repository", str(self._repository), *OPTIONS)

    async def restart(self) -> None:
        """SIGTERM, until the process has ended as it should; then anew, until it says that it is healthy."""
        self.process.send(signal.SIGTERM)
        await asyncio.to_thread(self.stop)
        await asyncio.to_thread(self.start)
        async with grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service="rankserve.v1.SchedulerService")
            answer = await health.Check(request, wait_for_ready=True, timeout=READY_TIMEOUT_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

    def stop(self) -> None:
        assert self.process.stop() == 0, self.process.stderr
        assert "Traceback" not in self.process.stderr, self.process.stderr


class Load:
    """Callers that keep two servers busy, and what they saw."""

    def __init__(self, client: AsyncSchedulerClient) -> None:
        self.errors: list[RankServeError] = []
        self.finished = 0
        self._client = client
        self._over = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as callers:
            for number in range(CALLERS):
                callers.create_task(self._complete(number))
                callers.create_task(self._generate(number))
            callers.create_task(self._submit())

    def end(self) -> None:
        """Sends no more; ``run`` returns once everything that was sent has ended."""
        self._over.set()

    async def _complete(self, number: int) -> None:
        while not self._over.is_set():
            try:
                tokens = 20 + number
                completion = await self._client.complete("Complete this", replay_output_tokens=tokens)
                assert completion.output_tokens == tokens
                self.finished += 1
            except RankServeError as error:
                self.errors.append(error)

    async def _generate(self, number: int) -> None:
        while not self._over.is_set():
            received = 0
            try:
                async for event in self._client.generate("Stream this", replay_output_tokens=10 + number):
                    if isinstance(event, Tokens):
                        assert event.offset == received
                        received += event.count
                assert received == 10 + number
                self.finished += 1
            except RankServeError as error:
                self.errors.append(error)

    async def _submit(self) -> None:
        sent: set[str] = set()
        ends: Counter[str] = Counter()
        received: Counter[str] = Counter()

        def note(event: Event) -> None:
            if isinstance(event, Tokens):
                assert event.offset == received[event.request_id], "a token is missing or came twice"
                received[event.request_id] += event.count
            elif isinstance(event, Finished | Failed):
                ends[event.request_id] += 1
                self.finished += 1
                if isinstance(event, Failed):
                    self.errors.append(event.error)

        async with self._client.submit(retry=RETRY) as stream:

            async def send() -> None:
                batch = 0
                while not self._over.is_set():
                    batch += 1
                    requests = [
                        Request(prompt="Submit this", id=f"submit-{batch}-{n}", replay_output_tokens=15)
                        for n in range(20)
                    ]
                    sent.update(await stream.send_many(requests))
                    # Some of each batch wait, and the queue does not grow without end.
                    while len(sent) - len(ends) > 60:
                        await asyncio.sleep(0.02)
                await stream.done_sending()

            sending = asyncio.create_task(send())
            async for event in stream:
                note(event)
            await sending
        assert ends == Counter(sent), "a request has not exactly one terminal event"
        assert all(received[request_id] == 15 for request_id in sent)


@pytest.mark.timeout(900)
async def test_replicas_restart_under_load_without_an_error_that_a_client_sees(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    publish(repository, "toy", 1, max_length=64)
    replicas = [Replica(tmp_path / name, repository) for name in ("one", "two")]
    try:
        async with AsyncSchedulerClient([replica.address for replica in replicas], retry=RETRY) as client:
            await client.wait_ready()
            load = Load(client)
            running = asyncio.create_task(load.run())
            for restart in range(RESTARTS):
                before = load.finished
                while load.finished < before + 100:
                    assert not running.done(), running.result()
                    await asyncio.sleep(0.05)
                await replicas[restart % 2].restart()
            load.end()
            await running
    finally:
        for replica in replicas:
            await asyncio.to_thread(replica.stop)
    assert load.errors == []
    assert load.finished > RESTARTS * 100
