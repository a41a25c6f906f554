"""Servers for the suites of promises."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.server_process import StartServer
from support.servers import servers
from support.toy_ranker import publish


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the version toy/1."""
    path = tmp_path_factory.mktemp("models")
    publish(path, "toy", 1, max_length=64)
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
