"""Writers wait for each other, but not for ever, and whoever may write a repository may lock it."""

import os
from pathlib import Path

import pytest
from support.lock_holder import locked_by_another

from rankserve.records.repository_lock import RepositoryLockedError, repository_lock


def test_a_lock_that_is_not_let_go_of_is_an_error_that_names_its_holder(tmp_path: Path) -> None:
    with (
        locked_by_another(tmp_path) as holder,
        pytest.raises(RepositoryLockedError, match=rf"locked by process {holder.pid} for 0\.1 s: wait until"),
        repository_lock(tmp_path, deadline_s=0.1),
    ):
        pass
    with repository_lock(tmp_path, deadline_s=0.0):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_holder_that_could_not_write_its_pid_is_another_process(tmp_path: Path) -> None:
    with repository_lock(tmp_path):
        (tmp_path / ".lock").write_text("")
        with (
            pytest.raises(RepositoryLockedError, match="locked by another process"),
            repository_lock(tmp_path, deadline_s=0.0),
        ):
            pass


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o2775, 0o1777])
@pytest.mark.parametrize("there", [False, True])
def test_the_file_is_for_whom_the_folder_is_for(tmp_path: Path, mode: int, there: bool) -> None:
    """Also one that an older release made."""
    tmp_path.chmod(mode)
    if there:
        (tmp_path / ".lock").touch(0o600)
    before = os.umask(0o077)
    try:
        with repository_lock(tmp_path):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / ".lock").stat().st_mode & 0o777 == mode & 0o666
    assert (tmp_path / ".lock").stat().st_gid == tmp_path.stat().st_gid
