"""Writers of one repository take turns: exporters, `rankserve models` and servers, on one file system."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK = ".lock"


@contextmanager
def repository_lock(repository: Path) -> Iterator[None]:
    """Holds the repository's lock; waits while another holds it. A process that dies lets go of it.

    Raises:
        OSError: the repository cannot be written.
    """
    with (repository / _LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
