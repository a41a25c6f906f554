"""A process that holds a repository's lock."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HOLD = (
    "import sys\n"
    "from pathlib import Path\n"
    "from rankserve.records.repository_lock import repository_lock\n"
    "with repository_lock(Path(sys.argv[1])):\n"
    "    print('locked', flush=True)\n"
    "    sys.stdin.read()\n"
)


@contextmanager
def locked_by_another(repository: Path) -> Iterator[subprocess.Popen[str]]:
    """Yields the process that holds the lock, which lets go of it when the context ends."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(repository)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
