"""A repository for toy ranker versions (support.toy_ranker)."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.toy_ranker import publish

Publish = Callable[..., Path]


@pytest.fixture
def repository_path(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    path.mkdir()
    return path


@pytest.fixture
def publish_version(repository_path: Path) -> Publish:
    """Publishes a toy version in the test's repository."""

    def publish_here(name: str = "toy", version: int = 1, **options: object) -> Path:
        return publish(repository_path, name, version, **options)  # type: ignore[arg-type]

    return publish_here
