"""Writers of one repository take turns: exporters, `rankserve models` and servers, on one file system."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCK = ".lock"
# What is done while holding it takes milliseconds; pruning hashes the versions that it keeps.
_DEADLINE_S = 10.0
_RETRY_S = 0.02


class RepositoryLockedError(OSError):
    """Another process holds the repository's lock. The message says which and what to do."""


@contextmanager
def repository_lock(repository: Path, *, deadline_s: float = _DEADLINE_S) -> Iterator[None]:
    """Holds the repository's lock. A process that dies lets go of it.

    Args:
        repository: folder of rankers.
        deadline_s: seconds to wait while another holds it.

    Raises:
        RepositoryLockedError: another held it all that time.
        OSError: the repository cannot be written.
    """
    path = repository / _LOCK
    descriptor = _open(repository, path)
    try:
        _lock(descriptor, path, deadline_s)
        # On a full disk, too, pruning must go on.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(descriptor)


def _open(repository: Path, path: Path) -> int:
    """Whoever may write the folder may lock it, whatever the umask of whoever was first."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        # Linux refuses to open another user's file for creation in a folder with the sticky bit.
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT, 0o666)
    status = repository.stat()
    # The file may be another user's, the group one that this user is not in.
    with suppress(PermissionError):
        os.fchown(descriptor, -1, status.st_gid)
    with suppress(PermissionError):
        os.fchmod(descriptor, status.st_mode & 0o666)
    return descriptor


def _lock(descriptor: int, path: Path, deadline_s: float) -> None:
    ends = time.monotonic() + deadline_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= ends:
                raise RepositoryLockedError(_held(descriptor, path, deadline_s)) from None
            time.sleep(_RETRY_S)
        else:
            return


def _held(descriptor: int, path: Path, deadline_s: float) -> str:
    pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    holder = f"process {pid}" if pid.isdecimal() else "another process"
    return (
        f"{path} has been locked by {holder} for {deadline_s:g} s: wait until it is done, or end it if it "
        "hangs (on its own machine, where the repository is shared), and try again; do not delete the file"
    )
