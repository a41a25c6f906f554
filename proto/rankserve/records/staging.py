"""Folders in which exporters make a version before it has a number: ``<repository>/.<name>-xxxxxxxx``.

Its exporter holds a lock on the folder, which is let go of however its process ends: a folder that nobody
holds was left by one that was killed.
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rankserve.records.ranker_version import MANIFEST, MODEL, MODEL_CARD, TOKENIZER
from rankserve.records.repository_lock import repository_lock

# As `tempfile` names folders.
_STAGING = re.compile(r"\..+-[a-z0-9_]{8}")
_FILES = {MANIFEST, MODEL, MODEL_CARD, TOKENIZER}


@contextmanager
def staging_folder(repository: Path, name: str) -> Iterator[Path]:
    """A new folder for a version of a ranker; the caller renames it. After an error it is deleted.

    Raises:
        OSError: the repository cannot be written, or another process keeps it locked.
    """
    # Within the lock: no pruner finds the folder before it is held.
    with repository_lock(repository):
        folder = Path(tempfile.mkdtemp(dir=repository, prefix=f".{name}-"))
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        # NFS locks no folders: nobody can take such a folder for abandoned, then.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)


def abandoned(repository: Path) -> list[Path]:
    """Staging folders that no process holds, sorted; certain only within the repository's lock."""
    return sorted(
        folder
        for folder in repository.glob(".*")
        if _STAGING.fullmatch(folder.name) and _is_abandoned(folder)
    )


def _is_abandoned(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        # No folder, or another user's.
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Not a folder of somebody else's that happens to have such a name.
        return {path.name for path in folder.iterdir()} <= _FILES
    except OSError:
        return False
    finally:
        os.close(descriptor)
