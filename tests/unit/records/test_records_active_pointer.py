"""The active pointer: read back or refused, with a history, and never torn or lost between writers."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.lock_holder import locked_by_another

from rankserve.records.active_pointer import (
    ACTIVE_POINTER,
    read_active,
    read_previous,
    roll_back,
    write_active,
    write_first_active,
)
from rankserve.records.ranker_version import RankerVersionError


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """With the folders of r/1 to r/30."""
    for version in range(1, 31):
        (tmp_path / "r" / str(version)).mkdir(parents=True)
    return tmp_path


def usable(_folder: Path) -> None:
    pass


def test_is_read_back(repository: Path) -> None:
    assert read_active(repository) is None
    assert read_previous(repository) == []
    write_active(repository, "r", 3)
    assert json.loads((repository / ACTIVE_POINTER).read_text()) == {"name": "r", "version": 3}
    write_active(repository, "r", 4)
    assert read_active(repository) == ("r", 4)
    assert sorted(path.name for path in repository.iterdir()) == [".lock", "active.json", "r"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"name": "r"}', '{"name": "r", "version": 1e999}', "[" * 100_000]
)
def test_an_unusable_pointer_is_named_and_activating_a_version_repairs_it(
    repository: Path, text: str
) -> None:
    (repository / ACTIVE_POINTER).write_text(text)
    for read in (read_active, lambda path: roll_back(path, usable)):
        with pytest.raises(RankerVersionError, match=rf"{ACTIVE_POINTER}: unreadable"):
            read(repository)
    write_active(repository, "r", 2)
    assert (read_active(repository), read_previous(repository)) == (("r", 2), [])


@pytest.mark.parametrize("previous", [1, [1], [{"name": "r"}], [{"name": "r", "version": "1"}]])
def test_an_unusable_history_stops_a_rollback_and_not_a_server(repository: Path, previous: object) -> None:
    document = {"name": "r", "version": 2, "previous": previous}
    (repository / ACTIVE_POINTER).write_text(json.dumps(document))
    assert read_active(repository) == ("r", 2)
    with pytest.raises(RankerVersionError, match="unreadable"):
        roll_back(repository, usable)
    assert read_active(repository) == ("r", 2)


def test_a_version_that_is_not_there_is_not_pointed_at(repository: Path) -> None:
    write_active(repository, "r", 1)
    with pytest.raises(RankerVersionError, match="holds no r/99"):
        write_active(repository, "r", 99)
    assert read_active(repository) == ("r", 1)


def test_rolling_back_goes_further_each_time(repository: Path) -> None:
    for version in (1, 2, 2, 3):
        write_active(repository, "r", version)
    assert read_previous(repository) == [("r", 2), ("r", 1)]
    assert roll_back(repository, usable) == (("r", 3), ("r", 2))
    assert roll_back(repository, usable) == (("r", 2), ("r", 1))
    with pytest.raises(RankerVersionError, match=r"no version was active before; choose one with"):
        roll_back(repository, usable)
    assert read_active(repository) == ("r", 1)


def test_the_history_names_a_version_once_and_stays_short(repository: Path) -> None:
    for version in (*range(1, 31), 29, 30):
        write_active(repository, "r", version)
    assert read_previous(repository) == [
        ("r", version) for version in (29, 28, 27, 26, 25, 24, 23, 22, 21, 20)
    ]


def test_a_pointer_of_an_older_release_gains_a_history(repository: Path) -> None:
    (repository / ACTIVE_POINTER).write_text('{"name": "r", "version": 1}\n')
    with pytest.raises(RankerVersionError, match="no version was active before"):
        roll_back(repository, usable)
    write_active(repository, "r", 2)
    assert roll_back(repository, usable) == (("r", 2), ("r", 1))


def test_a_version_that_cannot_be_used_is_not_rolled_back_to(repository: Path) -> None:
    def damaged(folder: Path) -> None:
        raise RankerVersionError(f"{folder.name} is damaged")

    for version in (1, 2):
        write_active(repository, "r", version)
    with pytest.raises(RankerVersionError, match="cannot go back to r/1: 1 is damaged; choose another"):
        roll_back(repository, damaged)
    (repository / "r" / "1").rmdir()
    with pytest.raises(RankerVersionError, match="holds no r/1"):
        roll_back(repository, usable)
    assert read_active(repository) == ("r", 2)


def test_of_first_versions_only_one_becomes_active(repository: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda version: write_first_active(repository, "r", version), range(1, 31)))
    assert read_previous(repository) == []


def test_writers_at_once_lose_no_history(repository: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda version: write_active(repository, "r", version), range(1, 11)))
    active = read_active(repository)
    assert {active, *read_previous(repository)} == {("r", version) for version in range(1, 11)}


def test_a_process_that_dies_lets_go_of_the_lock(repository: Path) -> None:
    with locked_by_another(repository) as process:
        process.kill()
    write_active(repository, "r", 1)
    assert read_active(repository) == ("r", 1)
