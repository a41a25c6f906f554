"""The model repository: which ranker versions there are, which are usable, which one is active."""

from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import structlog

from rankserve.records.active_pointer import read_active, write_active
from rankserve.records.manifest_checks import read_version
from rankserve.records.ranker_version import (
    RankerManifest,
    RankerVersionError,
    ranker_names,
    version_numbers,
)

log = structlog.get_logger(__name__)

Fingerprint = tuple[tuple[str, int, int, int], ...]


def bundled_repository() -> Path:
    """Folder of the repository that ships within the package."""
    return Path(str(files("rankserve.server.ranking") / "bundled"))


@dataclass(slots=True, frozen=True)
class VersionEntry:
    """One version in a repository.

    Attributes:
        name: the ranker's name.
        version: its integer version.
        manifest: what its ``ranker.json`` says; None if the version cannot be used.
        problem: why it cannot be used; empty if it can.
    """

    name: str
    version: int
    manifest: RankerManifest | None
    problem: str = ""


class ModelRepository:
    """A folder of ranker versions, ``<path>/<name>/<version>/``. Blocking: it reads and hashes files.

    Read anew on every call, so a version published meanwhile is seen; what was hashed before is hashed again
    only if a file of it changed. Names are looked up in the listing and never joined to a path unseen.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[Path, tuple[Fingerprint, VersionEntry]] = {}

    def list_versions(self) -> list[VersionEntry]:
        """Every version, damaged ones with their problem, by name and then version.

        Raises:
            RankerVersionError: the repository cannot be read.
        """
        return [
            self._entry(name, version) for name, versions in self._listing().items() for version in versions
        ]

    def resolve(self, name: str | None = None, version: int | None = None) -> Path:
        """Folder of a usable version.

        Args:
            name: the ranker's name; None: the only one there is.
            version: its version; None: the newest usable one. If `name` is None too, what the active pointer
                names goes first.

        Raises:
            RankerVersionError: there is none such, or it cannot be used. The message says what there is.
        """
        if name is None and version is None:
            pointer = read_active(self.path)
            if pointer is not None:
                return self._usable(*pointer)
        if name is None:
            name = self._only_name()
        return self._newest_usable(name) if version is None else self._usable(name, version)

    def set_active(self, name: str, version: int) -> None:
        """Points the repository at a version.

        Raises:
            RankerVersionError: the version does not exist or cannot be used; the pointer stays as it was.
            OSError: the repository cannot be written, or is the bundled one, which is never changed.
        """
        self._usable(name, version)
        if self.path.resolve() == bundled_repository().resolve():
            raise PermissionError(
                "the bundled repository is never changed; copy it to choose a version in it"
            )
        write_active(self.path, name, version)

    def _usable(self, name: str, version: int) -> Path:
        if version not in self._listing().get(name, ()):
            raise RankerVersionError(f"{self.path}: no ranker version {name}/{version}; {self._inventory()}")
        entry = self._entry(name, version)
        if entry.problem:
            raise RankerVersionError(entry.problem)
        return self._folder(name, version)

    def _newest_usable(self, name: str) -> Path:
        problems: list[str] = []
        for version in reversed(self._listing().get(name, ())):
            entry = self._entry(name, version)
            if not entry.problem:
                if problems:
                    log.warning(
                        "newer_ranker_versions_unusable", using=f"{name}/{version}", problems=problems
                    )
                return self._folder(name, version)
            problems.append(entry.problem)
        if problems:
            raise RankerVersionError(f"no version of ranker {name} is usable: {problems[0]}")
        raise RankerVersionError(f"{self.path}: no ranker {name!r}; {self._inventory()}")

    def _only_name(self) -> str:
        names = list(self._listing())
        if len(names) != 1:
            remedy = "name one of them" if names else "export one with `rankserve export`"
            raise RankerVersionError(
                f"{self.path}: no ranker version is active; {self._inventory()}; {remedy}"
            )
        return names[0]

    def _inventory(self) -> str:
        there = [f"{name}/{version}" for name, versions in self._listing().items() for version in versions]
        return f"there are {', '.join(there)}" if there else "there are none"

    def _listing(self) -> dict[str, list[int]]:
        try:
            return {name: version_numbers(self.path, name) for name in ranker_names(self.path)}
        except OSError as error:
            raise RankerVersionError(f"{self.path}: unreadable ({error.strerror})") from error

    def _folder(self, name: str, version: int) -> Path:
        return self.path / name / str(version)

    def _entry(self, name: str, version: int) -> VersionEntry:
        folder = self._folder(name, version)
        fingerprint = _fingerprint(folder)
        known = self._known.get(folder)
        if known is not None and known[0] == fingerprint:
            return known[1]
        try:
            entry = VersionEntry(name, version, read_version(folder))
        except RankerVersionError as error:
            entry = VersionEntry(name, version, None, str(error))
        self._known[folder] = (fingerprint, entry)
        return entry


def _fingerprint(folder: Path) -> Fingerprint:
    """Changes whenever a file of the folder does; what cannot be read is left to `read_version` to report."""
    entries = []
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            status = path.stat()
            entries.append((path.name, status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(entries)
