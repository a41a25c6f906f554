from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.ranker_folder import edit_manifest

from rankserve.records.active_pointer import ACTIVE_POINTER, read_active
from rankserve.records.ranker_version import (
    MANIFEST,
    MODEL,
    TOKENIZER,
    RankerVersionError,
)
from rankserve.server.ranking import repository as repository_module
from rankserve.server.ranking.repository import ModelRepository, bundled_repository

Publish = Callable[..., Path]


@pytest.fixture
def repository(repository_path: Path) -> ModelRepository:
    return ModelRepository(repository_path)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "half written": (lambda folder: (folder / MANIFEST).unlink(), "half written"),
    "no model": (lambda folder: (folder / MODEL).unlink(), "model.onnx is unreadable"),
    "damaged tokenizer": (lambda folder: (folder / TOKENIZER).write_text("{}"), "tokenizer.json is damaged"),
    "manifest is no JSON": (lambda folder: (folder / MANIFEST).write_text("{"), "unreadable"),
    "manifest out of range": (
        lambda folder: edit_manifest(folder, neutral_score=float("nan")),
        "neutral_score nan",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_version_is_listed_with_its_problem_and_not_resolved(
    repository: ModelRepository, publish_version: Publish, damage: str
) -> None:
    good, bad = publish_version(version=1), publish_version(version=2)
    inflict, problem = DAMAGES[damage]
    inflict(bad)
    first, second = repository.list_versions()
    assert (first.name, first.version, first.problem) == ("toy", 1, "")
    assert first.manifest is not None
    assert second.version == 2
    assert second.manifest is None
    assert problem in second.problem
    assert second.problem
    with pytest.raises(RankerVersionError):
        repository.resolve("toy", 2)
    with pytest.raises(RankerVersionError):
        repository.set_active("toy", 2)
    with capture_logs() as logs:
        assert repository.resolve("toy") == good
    assert logs[0]["using"] == "toy/1"


def test_a_version_is_read_again_when_a_file_of_it_changes(
    repository: ModelRepository, publish_version: Publish
) -> None:
    folder = publish_version()
    assert repository.list_versions()[0].problem == ""
    content = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(content[:-1])
    assert "damaged" in repository.list_versions()[0].problem
    (folder / MODEL).write_bytes(content)
    assert repository.list_versions()[0].problem == ""


def test_without_a_pointer_the_newest_of_the_only_name(
    repository: ModelRepository, publish_version: Publish
) -> None:
    for version in (1, 2, 10):
        newest = publish_version(version=version)
    assert repository.resolve() == newest
    assert repository.resolve("toy") == newest
    assert repository.resolve(None, 2) == repository.resolve("toy", 2)


def test_the_pointer_goes_first(repository: ModelRepository, publish_version: Publish) -> None:
    first = publish_version(version=1)
    publish_version(version=2)
    publish_version("other", 1)
    repository.set_active("toy", 1)
    assert repository.resolve() == first


def test_a_pointer_to_a_version_that_is_gone_is_an_error_not_another_version(
    repository: ModelRepository, publish_version: Publish
) -> None:
    publish_version(version=1)
    (repository.path / ACTIVE_POINTER).write_text('{"name": "toy", "version": 7}')
    with pytest.raises(RankerVersionError, match="no ranker version toy/7; there are toy/1"):
        repository.resolve()
    (repository.path / ACTIVE_POINTER).write_text("toy/1")
    with pytest.raises(RankerVersionError, match="unreadable"):
        repository.resolve()


def test_several_names_and_no_pointer_ask_for_a_name(
    repository: ModelRepository, publish_version: Publish
) -> None:
    publish_version("one", 1)
    publish_version("two", 1)
    with pytest.raises(RankerVersionError, match="there are one/1, two/1; name one of them"):
        repository.resolve()


@pytest.mark.parametrize("folder", ["0", "4294967296", "v2", "-1", ".tmp-3"])
def test_folders_that_are_no_version_are_left_alone(
    repository: ModelRepository, publish_version: Publish, folder: str
) -> None:
    good = publish_version()
    (good.parent / folder).mkdir()
    assert [entry.version for entry in repository.list_versions()] == [1]
    assert repository.resolve() == good


@pytest.mark.parametrize("path", ["empty", "absent"])
def test_an_empty_repository_says_how_to_fill_it(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    repository = ModelRepository(tmp_path / path)
    assert repository.list_versions() == []
    with pytest.raises(RankerVersionError, match="there are none; export one with `rankserve export`"):
        repository.resolve()


@pytest.mark.parametrize("name", ["../outside", "..", ".", "", "toy/..", "/etc", "toy\0", "x" * 5000])
def test_a_name_never_leads_out_of_the_repository(
    repository: ModelRepository, publish_version: Publish, name: str
) -> None:
    publish_version()
    (repository.path.parent / "outside" / "1").mkdir(parents=True)
    for version in (None, 1):
        with pytest.raises(RankerVersionError, match="no ranker"):
            repository.resolve(name, version)
    with pytest.raises(RankerVersionError):
        repository.set_active(name, 1)


def test_the_bundled_repository_is_never_changed(
    repository: ModelRepository, publish_version: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_version()
    monkeypatch.setattr(repository_module, "bundled_repository", lambda: repository.path)
    with pytest.raises(PermissionError, match="bundled"):
        repository.set_active("toy", 1)
    assert read_active(repository.path) is None


def test_the_bundled_repository_lies_within_the_package() -> None:
    assert bundled_repository() == Path(repository_module.__file__).parent / "bundled"
