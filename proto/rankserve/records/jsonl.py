"""JSON Lines files, plain or gzip, read and written one record at a time."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class RecordError(ValueError):
    """A record that cannot be used. The message names the file and the line; line 0 is the whole file."""

    def __init__(self, path: Path | str, line: int, problem: str) -> None:
        super().__init__(f"{path}:{line}: {problem}" if line else f"{path}: {problem}")
        self.path = Path(path)
        self.line = line
        self.problem = problem


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number from 1, object) for each non-blank line.

    Raises:
        RecordError: a line is not a JSON object, or the file is not UTF-8 text or valid gzip.
        OSError: the file cannot be opened.
    """
    number = 0
    # Bytes, decoded line by line: a decoder of the whole file fails thousands of bytes ahead of the line.
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line.decode("utf-8"))
                except UnicodeDecodeError as error:
                    raise RecordError(path, number, _not_utf8(error)) from None
                except (ValueError, RecursionError) as error:
                    raise RecordError(path, number, f"not valid JSON ({error})") from None
                if not isinstance(record, dict):
                    raise RecordError(path, number, f"expected a JSON object, got {type(record).__name__}")
                yield number, record
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise RecordError(
                path, number + 1, f"unreadable ({error}): the file is damaged or cut off, copy it again"
            ) from None


def _not_utf8(error: UnicodeDecodeError) -> str:
    byte = error.object[error.start]
    return (
        f"unreadable, not UTF-8: byte 0x{byte:02x} at column {error.start + 1} ({error.reason}); "
        f"convert the file, e.g. iconv -f latin1 -t utf-8"
    )


def write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> int:
    """Writes one object a line and returns how many. The parent folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with (
        gzip.open(path, "wt", encoding="utf-8")
        if path.suffix == ".gz"
        else path.open("w", encoding="utf-8") as file
    ):
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
            count += 1
    return count
