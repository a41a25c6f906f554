"""Pruning keeps what is in use, whoever else works on the repository and whenever it is killed."""

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.ranker_folder import write_version

from rankserve.records.active_pointer import read_active, roll_back, write_active
from rankserve.records.manifest_checks import read_version
from rankserve.records.pruning import Pruned, plan_pruning, prune
from rankserve.records.ranker_version import MODEL, RankerVersionError, version_numbers


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """r/1 to r/8 and s/1 to s/2."""
    for version in range(1, 9):
        write_version(tmp_path / "r" / str(version))
    for version in (1, 2):
        write_version(tmp_path / "s" / str(version))
    return tmp_path


def hidden(repository: Path) -> list[Path]:
    return [path for path in repository.rglob("*") if path.name.startswith(".pruned-")]


def test_the_newest_of_each_name_stay(repository: Path) -> None:
    plan = plan_pruning(repository)
    assert version_numbers(repository, "r") == list(range(1, 9))
    assert prune(repository) == plan
    assert plan.removed == tuple(("r", version) for version in range(1, 6))
    assert plan.freed_bytes > 5 * len(b"modeltokenizer")
    assert version_numbers(repository, "r") == [6, 7, 8]
    assert version_numbers(repository, "s") == [1, 2]
    assert hidden(repository) == []


def test_the_active_version_and_where_a_rollback_goes_stay(repository: Path) -> None:
    for version in (4, 1, 2):
        write_active(repository, "r", version)
    assert [version for _, version in prune(repository, keep=1).removed] == [3, 4, 5, 6, 7, 1]
    assert version_numbers(repository, "r") == [1, 2, 8]
    assert roll_back(repository, read_version) == (("r", 2), ("r", 1))
    with pytest.raises(RankerVersionError, match="holds no r/4"):
        roll_back(repository, read_version)


def test_only_the_name_that_was_asked_for(repository: Path) -> None:
    assert prune(repository, keep=1, name="s").removed == (("s", 1),)
    assert len(version_numbers(repository, "r")) == 8
    with pytest.raises(RankerVersionError, match="holds no ranker 'nope'"):
        prune(repository, name="nope")


def test_damaged_versions_are_not_among_those_to_keep(repository: Path) -> None:
    for version in (8, 6, 2):
        (repository / "r" / str(version) / MODEL).unlink()
    prune(repository, keep=2, name="r")
    # 7 and 5 can be used; 8 and 6 are newer than 5 and tell what went wrong.
    assert version_numbers(repository, "r") == [5, 6, 7, 8]


def test_nothing_usable_nothing_removed(repository: Path) -> None:
    for version in range(1, 9):
        (repository / "r" / str(version) / MODEL).unlink()
    assert prune(repository, keep=1, name="r") == Pruned((), 0)


def test_of_a_linked_version_only_the_link_goes(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "1"
    (repository / "r" / "1").rename(elsewhere)
    (repository / "r" / "1").symlink_to(elsewhere)
    pruned = prune(repository, name="r")
    assert (len(pruned.removed), pruned.undeleted) == (5, ())
    assert hidden(repository) == []
    assert (elsewhere / MODEL).is_file()


def test_a_version_is_hidden_in_its_own_folder(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ranker's folder may be a link to another disk, to which nothing can be renamed."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "r"
    (repository / "r").rename(elsewhere)
    (repository / "r").symlink_to(elsewhere)
    rename = Path.rename

    def on_one_disk(old: Path, new: Path) -> Path:
        if old.parent.resolve() != Path(new).parent.resolve():
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(old, new)

    monkeypatch.setattr(Path, "rename", on_one_disk)
    assert len(prune(repository, name="r").removed) == 5
    assert hidden(elsewhere) == []


def test_folders_that_only_look_like_versions_are_left_alone(repository: Path) -> None:
    for name in ("01", "007", "\u0663", "0009"):
        (repository / "r" / name).mkdir()
    assert version_numbers(repository, "r") == list(range(1, 9))
    assert prune(repository, name="r").removed == tuple(("r", version) for version in range(1, 6))
    assert (repository / "r" / "01").is_dir()


def test_an_unreadable_pointer_stops_it(repository: Path) -> None:
    (repository / "active.json").write_text("{")
    with pytest.raises(RankerVersionError, match="unreadable"):
        prune(repository)
    assert len(version_numbers(repository, "r")) == 8


def test_at_least_one_is_kept(repository: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        prune(repository, keep=0)


@pytest.mark.parametrize("kill_after", [1, 2])
@pytest.mark.parametrize("operation", ["rename", "unlink"])
def test_killed_in_the_middle_it_leaves_whole_versions_and_the_next_one_cleans_up(
    repository: Path, operation: str, kill_after: int
) -> None:
    write_active(repository, "r", 2)
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from rankserve.records.pruning import prune\n"
        "calls = 0\n"
        f"real = {{'rename': Path.rename, 'unlink': os.unlink}}[{operation!r}]\n"
        "def counted(*arguments, **named):\n"
        "    global calls\n"
        "    calls += 1\n"
        f"    if calls > {kill_after}:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*arguments, **named)\n"
        f"if {operation!r} == 'rename':\n"
        "    Path.rename = counted\n"
        "else:\n"
        "    os.unlink = counted\n"
        "prune(Path(sys.argv[1]), keep=2)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(repository)], env=dict(os.environ), check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert len(hidden(repository)) == (kill_after if operation == "rename" else 5)
    for version in version_numbers(repository, "r"):
        read_version(repository / "r" / str(version))
    assert read_active(repository) == ("r", 2)
    again = prune(repository, keep=2)
    assert again.freed_bytes > 0
    assert version_numbers(repository, "r") == [2, 7, 8]
    assert hidden(repository) == []


def test_pruners_and_activations_at_once_agree(repository: Path) -> None:
    write_active(repository, "r", 8)

    def activate(version: int) -> bool:
        try:
            write_active(repository, "r", version)
        except RankerVersionError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        pruning = [pool.submit(prune, repository, keep=1, name="r") for _ in range(4)]
        activations = [pool.submit(activate, version) for version in range(1, 8)]
        pruned = [future.result() for future in pruning]
        assert all(future.result() in (True, False) for future in activations)
    removed = [reference for each in pruned for reference in each.removed]
    assert len(removed) == len(set(removed))
    active = read_active(repository)
    assert active is not None
    read_version(repository / "r" / str(active[1]))
