"""A version enters the repository whole or not at all, next to any number of other exporters."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from tokenizers import Tokenizer

from rankserve.exporter.errors import ExportError
from rankserve.records.active_pointer import read_active, write_active, write_first_active
from rankserve.records.ranker_version import (
    MANIFEST,
    MODEL,
    MODEL_CARD,
    TOKENIZER,
    RankerManifest,
    sha256_of,
    sync_folder,
    version_numbers,
)
from rankserve.records.staging import staging_folder

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)


@dataclass(slots=True, frozen=True)
class Published:
    """Attributes:
    manifest: as written.
    folder: of the version.
    activated: whether the repository's active pointer was moved to it.
    active: the (name, version) that the pointer names now, None if it names none.
    """

    manifest: RankerManifest
    folder: Path
    activated: bool
    active: tuple[str, int] | None


def publish(
    repository: Path,
    model: onnx.ModelProto,
    tokenizer: Tokenizer,
    manifest: RankerManifest,
    card: Callable[[RankerManifest], str],
    *,
    activate: bool | None,
) -> Published:
    """Writes the next version of `manifest.name`.

    Args:
        repository: folder of rankers; made if missing.
        model: what becomes `model.onnx`.
        tokenizer: what becomes `tokenizer.json`.
        manifest: its version and sha256 are filled in here.
        card: makes the text of README.md from the manifest.
        activate: move the active pointer to the version; None: only if the repository has no active version.

    Raises:
        ExportError: the name cannot be a folder.
        RankerVersionError: the active pointer is unreadable.
        OSError: the repository cannot be written.
    """
    _check_name(manifest.name)
    repository.mkdir(parents=True, exist_ok=True)
    # Before the work: an unreadable pointer is not found out when the version is already there.
    read_active(repository)
    rankers = repository / manifest.name
    with staging_folder(repository, manifest.name) as staging:
        onnx.save(model, staging / MODEL)
        tokenizer.save(str(staging / TOKENIZER), pretty=False)
        rankers.mkdir(exist_ok=True)
        manifest, folder = _claim_number(repository, staging, manifest, card)
    sync_folder(rankers)
    sync_folder(repository)
    if activate:
        write_active(repository, manifest.name, manifest.version)
    elif activate is None:
        write_first_active(repository, manifest.name, manifest.version)
    now = read_active(repository)
    return Published(manifest, folder, now == (manifest.name, manifest.version), now)


def _claim_number(
    repository: Path, staging: Path, manifest: RankerManifest, card: Callable[[RankerManifest], str]
) -> tuple[RankerManifest, Path]:
    """Renames the staging folder to the next free number; another exporter may take that one first."""
    staging.chmod(0o755)
    while True:
        number = max(version_numbers(repository, manifest.name), default=0) + 1
        numbered = replace(manifest, version=number)
        (staging / MODEL_CARD).write_text(card(numbered), encoding="utf-8")
        sha256 = {name: sha256_of(staging / name) for name in (MODEL, TOKENIZER, MODEL_CARD)}
        numbered = replace(numbered, sha256=sha256)
        (staging / MANIFEST).write_text(numbered.to_json(), encoding="utf-8")
        for file in staging.iterdir():
            _sync_file(file)
        sync_folder(staging)
        folder = repository / manifest.name / str(number)
        try:
            staging.rename(folder)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        else:
            return numbered, folder


def _check_name(name: str) -> None:
    if not name or name.startswith(".") or Path(name).name != name or not name.isprintable():
        raise ExportError(
            f"a ranker's name is a plain folder name that does not start with a dot, got {name!r}"
        )


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
