"""A server with a journal over any number of its lives, and clients that attach again."""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

from support.messages import PROMPT_MARKER
from support.server_process import Connection, ServerProcess
from support.servers import judge
from support.submit_stream import History

from rankserve.v1 import scheduler_pb2 as pb

_TIMEOUT_S = 60.0


class ServerLives:
    """One server at a time on one journal. A context manager, which ends the last and judges it.

    Args:
        folder: takes the journal, and what each server prints.
        repository: of ranker versions.
        options: of every life.
    """

    def __init__(self, folder: Path, repository: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.journal = folder / "journal"
        self._options = (
            "--repository",
            str(repository),
            "--replay",
            "--journal",
            str(self.journal),
            *options,
        )
        self._starts = 0
        self.server: ServerProcess | None = None

    def __enter__(self) -> "ServerLives":
        return self

    def __exit__(self, *failed: object) -> None:
        if self.server is not None:
            if failed[0] is None:
                self.stop()
            else:
                self.kill()

    def start(self, *options: str) -> ServerProcess:
        """The next life begins; the one before is over."""
        assert self.server is None
        self._starts += 1
        self.server = ServerProcess(self.folder / f"life-{self._starts}", *self._options, *options)
        return self.server

    def kill(self) -> None:
        assert self.server is not None
        server, self.server = self.server, None
        server.kill()
        assert "Traceback" not in server.stderr, server.stderr
        assert PROMPT_MARKER not in server.stderr, "a prompt was logged"

    def stop(self) -> None:
        """SIGTERM, unless it got one, and a judgement."""
        assert self.server is not None
        server, self.server = self.server, None
        judge(server)

    async def restart(self, *options: str) -> ServerProcess:
        """kill -9, and the next life."""
        await asyncio.to_thread(self.kill)
        return await asyncio.to_thread(self.start, *options)


async def watch(connection: Connection, positions: Mapping[str, int] | Iterable[str]) -> History:
    """Attaches to requests, each from the token it is missing, until all have ended."""
    offsets = positions if isinstance(positions, Mapping) else dict.fromkeys(positions, 0)
    history = History()
    wanted = [pb.WatchPosition(request_id=i, offset=offset) for i, offset in offsets.items()]
    call = connection.scheduler.Watch(pb.WatchRequest(positions=wanted), timeout=_TIMEOUT_S)
    async for response in call:
        history.add(response.events)
    return history
