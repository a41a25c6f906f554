"""Servers of a test: real processes, judged when they end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import token_files
from support.messages import PROMPT_MARKER
from support.server_process import ServerProcess, StartServer


def judge(server: ServerProcess) -> None:
    """What holds for every server, whatever a test did to it."""
    status = server.stop()
    assert status == 0, server.stderr
    assert "Traceback" not in server.stderr, server.stderr
    # What a handler let escape, as gRPC and uvicorn log it.
    for escaped in ("Unexpected [", "Exception in ASGI application"):
        assert escaped not in server.stderr, server.stderr
    assert server.rest_of_stdout == ""
    assert PROMPT_MARKER not in server.stderr, "a prompt was logged"
    assert not [token for token in token_files.ALL if token in server.stderr], "a token was logged"


@contextmanager
def servers(folder: Path, default_repository: Path) -> Iterator[StartServer]:
    started: list[ServerProcess] = []

    def start(*options: str, repository: Path | None = None) -> ServerProcess:
        server_folder = folder / f"server-{len(started)}"
        path = repository or default_repository
        server = ServerProcess(server_folder, "--repository", str(path), *options)
        started.append(server)
        return server

    try:
        yield start
    finally:
        for server in started:
            server.stop()
    for server in started:
        judge(server)
