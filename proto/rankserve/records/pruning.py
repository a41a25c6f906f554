"""Deleting old versions of a repository, beside exporters, servers and other pruners."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rankserve.records.active_pointer import Reference, read_active, read_previous
from rankserve.records.manifest_checks import read_version
from rankserve.records.ranker_version import (
    RankerVersionError,
    ranker_names,
    sync_folder,
    version_numbers,
)
from rankserve.records.repository_lock import repository_lock
from rankserve.records.staging import abandoned

DEFAULT_KEEP = 3
# No number, so that nothing takes it for a version. Beside the versions: a ranker's folder may be a link to
# another file system, to which nothing can be renamed.
_PRUNED = ".pruned-"


@dataclass(slots=True, frozen=True)
class Pruned:
    """Attributes:
    removed: versions that are gone (or would go).
    freed_bytes: what they took on disk, with what killed pruners and exporters had left.
    undeleted: folders that could not be deleted; they are no versions any more.
    """

    removed: tuple[Reference, ...]
    freed_bytes: int
    undeleted: tuple[Path, ...] = ()


def plan_pruning(repository: Path, *, keep: int = DEFAULT_KEEP, name: str | None = None) -> Pruned:
    """What `prune` would remove now.

    Raises:
        RankerVersionError: the active pointer is unreadable, or there is no ranker of that name.
        OSError: the repository cannot be read.
    """
    removed = _superfluous(repository, keep, name)
    left = [*_left(repository), *abandoned(repository)]
    folders = [repository / each / str(number) for each, number in removed]
    return Pruned(tuple(removed), sum(map(_bytes, [*folders, *left])))


def prune(repository: Path, *, keep: int = DEFAULT_KEEP, name: str | None = None) -> Pruned:
    """Deletes versions but the newest usable ones, the active one and the one that a rollback goes to.

    A version is first renamed out of sight, whole, and then deleted: nobody ever sees half of one. What a
    killed pruner or exporter left is deleted too.

    Args:
        repository: folder of rankers.
        keep: how many usable versions of each name to keep, at least 1. Damaged ones that are newer than
            the oldest of them stay too, for whoever looks into what happened.
        name: only of this ranker; None: of each.

    Raises:
        RankerVersionError: the active pointer is unreadable, or there is no ranker of that name.
        OSError: the repository cannot be written.
    """
    with repository_lock(repository):
        # Within the lock: nothing becomes active, or the target of a rollback, between choosing and renaming.
        removed = _superfluous(repository, keep, name)
        for each, number in removed:
            hidden = repository / each / f"{_PRUNED}{number}-{secrets.token_hex(4)}"
            (repository / each / str(number)).rename(hidden)
        for each in {each for each, _ in removed}:
            sync_folder(repository / each)
        left = [*_left(repository), *abandoned(repository)]
    freed = sum(map(_bytes, left))
    for folder in left:
        _delete(folder)
    return Pruned(tuple(removed), freed, tuple(folder for folder in left if os.path.lexists(folder)))


def _superfluous(repository: Path, keep: int, name: str | None) -> list[Reference]:
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    names = ranker_names(repository)
    if name is not None and name not in names:
        raise RankerVersionError(f"{repository} holds no ranker {name!r}; see `rankserve models list`")
    in_use = {read_active(repository), *read_previous(repository)[:1]}
    return [
        (each, number)
        for each in (names if name is None else [name])
        for number in _older_than_kept(repository / each, version_numbers(repository, each), keep)
        if (each, number) not in in_use
    ]


def _older_than_kept(folder: Path, numbers: list[int], keep: int) -> list[int]:
    """The newest number is never among them, so that no exporter gives one twice."""
    kept = 0
    for index in reversed(range(len(numbers))):
        if kept == keep:
            return numbers[: index + 1]
        kept += _is_usable(folder / str(numbers[index]))
    return []


def _is_usable(folder: Path) -> bool:
    try:
        read_version(folder)
    except RankerVersionError:
        return False
    return True


def _left(repository: Path) -> Iterator[Path]:
    return repository.glob(f"*/{_PRUNED}*")


def _delete(folder: Path) -> None:
    """What cannot be deleted stays, and another pruner may be at it too: the caller looks what is left."""
    if folder.is_symlink():
        # Only the link is the repository's.
        with suppress(OSError):
            folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _bytes(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    except FileNotFoundError:
        # Another pruner was faster; the bytes are its to report.
        return 0
