"""Files that may be replaced while the server runs."""

import asyncio
from collections.abc import Callable
from pathlib import Path

INTERVAL_S = 1.0

_Signature = tuple[tuple[int, int, int] | None, ...]


class WatchedFiles:
    """Tells when one of a few files was replaced or written to, by time stamp, inode and size.

    Links are followed, so the links that Kubernetes swaps are seen too.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._seen: _Signature = ()

    def changed(self) -> bool:
        """Whether they differ from what they were when this was last asked. True the first time."""
        before, self._seen = self._seen, tuple(_signature(path) for path in self._paths)
        return self._seen != before

    async def next_change(self) -> None:
        """Waits for the next change."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            # Not on the event loop: a file system may hang.
            if await asyncio.to_thread(self.changed):
                return

    async def watch(self, on_change: Callable[[], object]) -> None:
        """Calls `on_change` after each change, until it is cancelled."""
        while True:
            await self.next_change()
            on_change()


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def warn_if_others_read(path: Path, warn: Callable[[str], None]) -> None:
    """Calls `warn` with the file's mode where its group or everybody may read a secret file."""
    try:
        mode = path.stat().st_mode & 0o777
    except OSError:
        return
    if mode & 0o007:
        warn(f"{mode:o}")
