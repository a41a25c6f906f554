"""Checkpoints that count only once they are whole."""

import os
import shutil
from pathlib import Path

# Written last, and removed first.
_WHOLE = "whole"


class Checkpoints:
    """The folder that the Hugging Face Trainer writes ``checkpoint-<step>`` folders into.

    The Trainer writes and deletes file by file. A kill in the midst leaves a folder without the mark of a
    whole one, which is passed over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def of_step(self, step: int) -> Path:
        return self.path / f"checkpoint-{step}"

    def last(self) -> Path | None:
        """The newest whole one."""
        return max((path for path in self._all() if (path / _WHOLE).is_file()), key=_step, default=None)

    def remove_broken(self) -> None:
        """Removes what was cut off while it was written or deleted."""
        for path in self._all():
            if not (path / _WHOLE).is_file():
                shutil.rmtree(path)

    def complete(self, step: int, keep: int | None) -> None:
        """Declares one whole, and removes all others but that of step ``keep``."""
        folder = self.of_step(step)
        for path in (*folder.iterdir(), folder):
            _sync(path)
        (folder / _WHOLE).touch()
        _sync(folder)
        for path in self._all():
            if _step(path) not in (step, keep):
                (path / _WHOLE).unlink(missing_ok=True)
                shutil.rmtree(path)

    def _all(self) -> list[Path]:
        return [path for path in self.path.glob("checkpoint-*") if path.name.split("-")[-1].isdecimal()]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
