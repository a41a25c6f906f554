"""The log of a collection: one line for each sample as it comes, so that a killed run loses none.

::

    {"schema": ..., "settings": {...}}                                  first line
    {"id": ..., "sample": 0, "sent": true}                              a request goes out
    {"id": ..., "sample": 0, "output_tokens": 17, "censored": false,    its answer
     "input_tokens": 9, "latency_s": 0.52, "digest": ...}
    {"id": ..., "failed": "HTTP 400: ...", "digest": ...}               the endpoint refuses the prompt
    {"retry_failed": true}                                              refusals up to here no longer count

Neither prompt nor answer is in it. Lines are given to the operating system at once, which a kill of the
process does not undo, and synced to the disk in groups.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankserve.trainer.collection.answers import Answer
from rankserve.trainer.collection.errors import CollectionError
from rankserve.trainer.collection.log_lines import LOG_SCHEMA, Recorded, read_log
from rankserve.trainer.collection.output import sync_folder
from rankserve.trainer.collection.prompts import Prompt

_SYNC_EVERY_LINES = 64
_SYNC_EVERY_S = 2.0


def log_path(output: Path) -> Path:
    """Where the log of an output file is: beside it."""
    return output.with_name(f"{output.name}.samples")


@dataclass(slots=True)
class _Unsynced:
    lines: int
    since_s: float


class SampleLog:
    """An open log, held by one process at a time. Close it, or use it as a context manager.

    Args:
        path: of the log; made if missing.
        settings: that all its samples share (``Sampling.comparable``).
        clock: monotonic seconds.

    Raises:
        CollectionError: another process holds it, its settings are others, or it is none.
        RecordError: a line but the last cannot be read; names it.
        OSError: it cannot be written.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            self._lock()
            self.recorded = self._read(settings)
        except BaseException:
            os.close(self._file)
            raise
        self._unsynced = _Unsynced(0, clock())

    def __enter__(self) -> "SampleLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Syncs what is written and lets another process have the log. One with nothing in it is removed."""
        if self.recorded.is_empty:
            self.path.unlink(missing_ok=True)
        os.fsync(self._file)
        os.close(self._file)

    def sent(self, prompt: Prompt, sample: int) -> None:
        """Notes that a request goes out, to know after a kill what was on its way."""
        self._append({"id": prompt.id, "sample": sample, "sent": True})
        self.recorded.unanswered.add((prompt.id, sample))

    def answered(self, prompt: Prompt, sample: int, answer: Answer) -> None:
        """Records a sample: it will not be asked for again."""
        self._append(
            {
                "id": prompt.id,
                "sample": sample,
                "output_tokens": answer.output_tokens,
                "censored": answer.censored,
                "input_tokens": answer.input_tokens,
                "latency_s": round(answer.latency_s, 4),
                "digest": prompt.digest,
            }
        )
        self.recorded.add_answer(prompt.id, prompt.digest, sample, answer)

    def refused(self, prompt: Prompt, reason: str) -> None:
        """Records that the endpoint will not answer this prompt."""
        self._append({"id": prompt.id, "failed": reason, "digest": prompt.digest})
        self.recorded.add_refusal(prompt.id, prompt.digest, reason)

    def retry_failed(self) -> None:
        """Lets the refusals recorded so far no longer count."""
        self._append({"retry_failed": True})
        self.recorded.forget_refusals()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CollectionError(
                f"another process collects into {self.path}: wait for it, or use another --output"
            ) from None

    def _read(self, settings: Mapping[str, Any]) -> Recorded:
        before, recorded, valid_bytes = read_log(self.path)
        changed = sorted(
            name for name, value in settings.items() if before is not None and before.get(name) != value
        )
        if changed and not recorded.prompts:
            before, recorded, valid_bytes, changed = None, Recorded(), 0, []
        # A line that a kill tore must not run into the next.
        os.ftruncate(self._file, valid_bytes)
        if before is None:
            self._write({"schema": LOG_SCHEMA, "settings": dict(settings)})
            os.fsync(self._file)
            sync_folder(self.path.parent)
        elif changed:
            was = ", ".join(f"{name} {before.get(name)!r:.60}" for name in changed)
            raise CollectionError(
                f"{self.path} was begun with {was}: lengths drawn otherwise must not be mixed; "
                f"say the same, or use another --output"
            )
        return recorded

    def _append(self, line: dict[str, Any]) -> None:
        self._write(line)
        self._unsynced.lines += 1
        now_s = self._clock()
        if self._unsynced.lines >= _SYNC_EVERY_LINES or now_s - self._unsynced.since_s >= _SYNC_EVERY_S:
            os.fsync(self._file)
            self._unsynced = _Unsynced(0, now_s)

    def _write(self, line: dict[str, Any]) -> None:
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            # A full disk can take a part of a line, which must not run into another's.
            os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise
