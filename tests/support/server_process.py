"""`rankserve serve` as a process, the way an operator runs it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Protocol, cast

import grpc

from rankserve.v1 import scheduler_pb2 as pb
from rankserve.v1.admin_pb2_grpc import AdminServiceStub
from rankserve.v1.ranker_pb2_grpc import RankerServiceStub
from rankserve.v1.scheduler_pb2_grpc import SchedulerServiceStub

if TYPE_CHECKING:
    from rankserve.v1.admin_pb2_grpc import AdminServiceAsyncStub
    from rankserve.v1.ranker_pb2_grpc import RankerServiceAsyncStub
    from rankserve.v1.scheduler_pb2_grpc import SchedulerServiceAsyncStub

SERVICES = ("rankserve.v1.SchedulerService", "rankserve.v1.RankerService")
COMMAND = Path(sys.executable).with_name("rankserve")
# A proxy of the environment must not stand between a test and its loopback server. And a channel to a server
# that is gone, which waits before it tries again, is not shared with one to the next server on that port.
CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
_STOP_TIMEOUT_S = 60
_STATS_TIMEOUT_S = 30


def serve_command(*options: str) -> list[str]:
    return [str(COMMAND), "serve", "--port", "0", "--json", *options]


def environment() -> Mapping[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


class ServerProcess:
    """A server that listens on a free loopback port. Started here, ended here by its pid.

    Args:
        folder: takes the server's stdout and stderr.
        options: of `rankserve serve`.

    Raises:
        RuntimeError: it ended before it listened; holds its stderr.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._told_to_end = False
        self._stderr_path = folder / "stderr.txt"
        with self._stderr_path.open("wb") as stderr:
            self.process = subprocess.Popen(
                serve_command(*options),
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment(),
            )
        assert self.process.stdout is not None
        first_line = self.process.stdout.readline()
        if not first_line:
            status = self.process.wait()
            raise RuntimeError(f"rankserve serve ended with status {status}: {self.stderr}")
        self.listening: dict[str, str] = json.loads(first_line)

    @property
    def address(self) -> str:
        return self.listening["address"]

    @property
    def stderr(self) -> str:
        return self._stderr_path.read_text(encoding="utf-8")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._told_to_end = True
        self.process.send_signal(number)

    def stop(self) -> int:
        """Waits for the server's end, which it asks for unless somebody has; returns its exit status.

        Whatever is wrong with it, it is gone after.
        """
        if not self._told_to_end:
            self.send(signal.SIGTERM)
        try:
            return self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._read_stdout()

    def kill(self) -> None:
        """SIGKILL; returns once it is gone."""
        self._told_to_end = True
        self.process.kill()
        self.process.wait()
        self._read_stdout()

    def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        if not self.process.stdout.closed:
            self.rest_of_stdout = self.process.stdout.read()
            self.process.stdout.close()


class StartServer(Protocol):
    """The fixture `start_server`."""

    def __call__(self, *options: str, repository: Path | None = None) -> ServerProcess: ...


class Connection:
    """An asyncio channel to a server, with a stub for each service. An async context manager.

    Args:
        address: the server's.
        channel: another than a plain one.
        metadata: that the server's counters are asked for with.
    """

    def __init__(
        self,
        address: str,
        channel: grpc.aio.Channel | None = None,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self._metadata = metadata
        self.channel = channel or grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self.scheduler = cast("SchedulerServiceAsyncStub", SchedulerServiceStub(self.channel))
        self.ranker = cast("RankerServiceAsyncStub", RankerServiceStub(self.channel))
        self.admin = cast("AdminServiceAsyncStub", AdminServiceStub(self.channel))

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def stats(self) -> pb.GetStatsResponse:
        return await self.scheduler.GetStats(pb.GetStatsRequest(), metadata=self._metadata)

    async def until_idle(self) -> pb.GetStatsResponse:
        """Waits until no request lives; no KV block may be held then."""
        stats = await self.until_stats(lambda stats: not stats.scoring + stats.waiting + stats.running)
        assert stats.kv_blocks_used == 0, stats
        ended = stats.finished_total + stats.cancelled_total + stats.expired_total + stats.failed_total
        assert stats.accepted_total == ended, stats
        return stats

    async def until_stats(self, condition: Callable[[pb.GetStatsResponse], bool]) -> pb.GetStatsResponse:
        """Asks for the counters until they fulfil the condition.

        Raises:
            AssertionError: they never did; holds the last.
        """
        stats = await self.stats()
        deadline_s = monotonic() + _STATS_TIMEOUT_S
        while not condition(stats):
            assert monotonic() < deadline_s, stats
            await asyncio.sleep(0.02)
            stats = await self.stats()
        return stats
