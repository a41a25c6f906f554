"""Which version of a repository is active: ``<repository>/active.json``.

``{"name": "chat", "version": 4, "previous": [{"name": "chat", "version": 3}, ...]}``. `previous` holds what
was active before, the latest first; a pointer of an older release has none. Readers see the old pointer or
the new one, writers take turns.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rankserve.records.json_values import is_integer
from rankserve.records.ranker_version import RankerVersionError, write_atomically
from rankserve.records.repository_lock import repository_lock

ACTIVE_POINTER = "active.json"
_MOST_PREVIOUS = 10

# A ranker's name and version.
Reference = tuple[str, int]


def read_active(repository: Path) -> Reference | None:
    """What the repository's pointer names, or None if it has none.

    Raises:
        RankerVersionError: the pointer is unreadable.
    """
    document = _read(repository)
    return None if document is None else _reference(repository, document)


def read_previous(repository: Path) -> list[Reference]:
    """What was active before, the latest first. The first is where `roll_back` goes to.

    Raises:
        RankerVersionError: the pointer is unreadable.
    """
    document = _read(repository)
    previous = [] if document is None else document.get("previous", [])
    if not isinstance(previous, list):
        raise _unreadable(repository, "previous is not a list")
    return [_reference(repository, each) for each in previous]


def write_active(repository: Path, name: str, version: int) -> None:
    """Points the repository at a version, atomically.

    Raises:
        RankerVersionError: the version is not there (any more); the pointer stays as it was.
        OSError: the repository cannot be written.
    """
    with repository_lock(repository):
        _write_active(repository, (name, version))


def write_first_active(repository: Path, name: str, version: int) -> None:
    """Points the repository at a version unless it points at one.

    Raises:
        RankerVersionError: the version is not there (any more), or the pointer is unreadable.
        OSError: the repository cannot be written.
    """
    with repository_lock(repository):
        if read_active(repository) is None:
            _write_active(repository, (name, version))


def roll_back(repository: Path, check: Callable[[Path], object]) -> tuple[Reference, Reference]:
    """Points the repository at the version that was active before the present one.

    Rolling back again goes on to the version before that.

    Args:
        repository: folder of rankers.
        check: raises RankerVersionError if the version in a folder cannot be used.

    Returns:
        The version that was active, and the one that is now.

    Raises:
        RankerVersionError: there is none to go back to, or it cannot be used; the pointer stays as it was.
        OSError: the repository cannot be written.
    """
    with repository_lock(repository):
        active, previous = read_active(repository), read_previous(repository)
        if active is None or not previous:
            raise RankerVersionError(
                f"{repository}: no version was active before; choose one with `rankserve models activate`"
            )
        before, *older = previous
        try:
            _check_there(repository, before)
            check(_folder(repository, before))
        except RankerVersionError as error:
            raise RankerVersionError(
                f"cannot go back to {_text(before)}: {error}; choose another version with "
                "`rankserve models activate`"
            ) from None
        _write(repository, before, older)
        return active, before


def _write_active(repository: Path, chosen: Reference) -> None:
    _check_there(repository, chosen)
    try:
        active, previous = read_active(repository), read_previous(repository)
    except RankerVersionError:
        # Activating a version is how an operator repairs the pointer; its history is lost.
        active, previous = None, []
    if active is not None and active != chosen:
        previous = [active, *(each for each in previous if each != active)]
    _write(repository, chosen, [each for each in previous if each != chosen])


def _write(repository: Path, active: Reference, previous: list[Reference]) -> None:
    document: dict[str, Any] = _as_json(active)
    if previous:
        document["previous"] = [_as_json(each) for each in previous[:_MOST_PREVIOUS]]
    write_atomically(_path(repository), json.dumps(document) + "\n")


def _read(repository: Path) -> dict[str, Any] | None:
    path = _path(repository)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(repository, str(error)) from None
    if not isinstance(document, dict):
        raise _unreadable(repository, "not a JSON object")
    return document


def _reference(repository: Path, document: object) -> Reference:
    match document:
        case {"name": str(name), "version": version} if is_integer(version):
            return name, version
    raise _unreadable(repository, "expected a name and an integer version")


def _unreadable(repository: Path, why: str) -> RankerVersionError:
    return RankerVersionError(
        f"{_path(repository)}: unreadable ({why}); `rankserve models activate` writes it anew"
    )


def _check_there(repository: Path, reference: Reference) -> None:
    if not _folder(repository, reference).is_dir():
        raise RankerVersionError(f"{repository} holds no {_text(reference)}; see `rankserve models list`")


def _path(repository: Path) -> Path:
    return repository / ACTIVE_POINTER


def _folder(repository: Path, reference: Reference) -> Path:
    return repository / reference[0] / str(reference[1])


def _text(reference: Reference) -> str:
    return "{}/{}".format(*reference)


def _as_json(reference: Reference) -> dict[str, Any]:
    return {"name": reference[0], "version": reference[1]}
