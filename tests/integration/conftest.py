"""Servers for the tests of this folder: real processes, judged when they end."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.server_fixtures import servers
from support.server_process import Connection, ServerProcess, StartServer
from support.toy_ranker import publish, publish_three


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the version toy/1, for servers that only read it."""
    path = tmp_path_factory.mktemp("models")
    publish(path, "toy", 1, max_length=64)
    return path


@pytest.fixture
def own_repository(tmp_path: Path) -> Path:
    """A repository of the test's own, with the versions of `publish_three`."""
    path = tmp_path / "models"
    publish_three(path)
    return path


@pytest.fixture
def start_server(tmp_path: Path, repository: Path) -> Iterator[StartServer]:
    """Starts servers that end, and are judged, with the test."""
    with servers(tmp_path, repository) as start:
        yield start


@pytest.fixture(scope="module")
def start_module_server(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[StartServer]:
    """Starts servers that the tests of a module share."""
    with servers(tmp_path_factory.mktemp("module"), repository) as start:
        yield start


@pytest.fixture(scope="session")
def slow_server(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[ServerProcess]:
    """Shared: four slots and about 10 ms a token, so a test can hold a request where it wants it."""
    with servers(tmp_path_factory.mktemp("slow"), repository) as start:
        yield start("--replay", "--max-sequences", "4")


@pytest.fixture
async def slow(slow_server: ServerProcess) -> AsyncIterator[Connection]:
    """A connection to the slow server, which holds nothing before and after the test."""
    async with Connection(slow_server.address) as connection:
        await connection.until_idle()
        yield connection
        await connection.until_idle()
