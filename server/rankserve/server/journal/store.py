"""The journal's file: SQLite in WAL mode, one transaction for all that gathered since the last.

A batch goes in by one statement a table, which reads its rows out of a JSON array and its texts out of one
blob: SQLite gives up the interpreter's lock once for each statement, and on a busy event loop getting it back
takes milliseconds.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC

_SCHEMA = 1
_TABLES = """
CREATE TABLE requests (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    accept_time REAL NOT NULL,
    body BLOB NOT NULL,
    end_time REAL,
    outcome TEXT,
    text BLOB,
    boundaries BLOB
);
CREATE TABLE tokens (
    number INTEGER NOT NULL,
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    text BLOB NOT NULL,
    PRIMARY KEY (number, first)
) WITHOUT ROWID;
"""
_ACCEPT = """
INSERT INTO requests (number, id, accept_time, body)
SELECT value->>0, value->>1, value->>2, substr(?2, value->>3, value->>4) FROM json_each(?1)
"""
_TOKENS = """
INSERT INTO tokens (number, first, count, text)
SELECT value->>0, value->>1, value->>2, substr(?2, value->>3, value->>4) FROM json_each(?1)
"""
_END = """
UPDATE requests SET
    end_time = given.value->>1,
    outcome = CAST(substr(?2, given.value->>2, given.value->>3) AS TEXT),
    text = substr(?2, given.value->>4, given.value->>5),
    boundaries = substr(?2, given.value->>6, given.value->>7)
FROM json_each(?1) AS given WHERE number = given.value->>0
"""
_DROP_TOKENS = "DELETE FROM tokens WHERE number IN (SELECT value FROM json_each(?1))"
_FORGET = "DELETE FROM requests WHERE number IN (SELECT value FROM json_each(?1))"


class JournalError(ValueError):
    """The journal cannot be used as it is. The message says why and what to do."""


@dataclass(slots=True, frozen=True)
class Entry:
    """A request as the journal knows it.

    Attributes:
        number: its place in the order of acceptance.
        accept_time: Unix time.
        body: as it was recorded.
        pieces: (first token, tokens, text) of a live one's answer, in order.
        end_time, outcome, text, boundaries: of one that ended; None where it has not.
    """

    number: int
    id: str
    accept_time: float
    body: bytes
    pieces: list[tuple[int, int, str]]
    end_time: float | None
    outcome: str | None
    text: str
    boundaries: bytes


@dataclass(slots=True)
class Batch:
    """What one transaction records.

    Attributes:
        accepted: (number, id, accept time, body).
        tokens: by number (first token, tokens, texts).
        ended: (number, end time, outcome, text, boundaries).
        forgotten: numbers.
    """

    accepted: list[tuple[int, str, float, bytes]] = field(default_factory=list)
    tokens: dict[int, tuple[int, int, list[str]]] = field(default_factory=dict)
    ended: list[tuple[int, float, bytes, str, bytes]] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)

    def add_tokens(self, number: int, first: int, count: int, text: str) -> None:
        known = self.tokens.get(number)
        if known is None:
            self.tokens[number] = (first, count, [text])
        else:
            known[2].append(text)
            self.tokens[number] = (known[0], known[1] + count, known[2])


class JournalStore:
    """Blocking; used by one thread at a time. The file belongs to one process at a time.

    Raises:
        JournalError: it is damaged, another server's, of another version, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        # A link must not give one file two locks.
        self.path = path.resolve()
        self._lock = _lock(self.path)
        try:
            self._connection = _open(self.path)
        except sqlite3.DatabaseError as error:
            os.close(self._lock)
            raise _damaged(self.path, error) from error
        except BaseException:
            os.close(self._lock)
            raise

    def entries(self) -> Iterator[Entry]:
        """Every request in it, in the order of acceptance.

        Raises:
            JournalError: it is damaged.
        """
        try:
            yield from self._entries()
        except (sqlite3.Error, ValueError) as error:
            raise _damaged(self.path, error) from error

    def _entries(self) -> Iterator[Entry]:
        pieces: dict[int, list[tuple[int, int, str]]] = {}
        for number, first, count, text in self._connection.execute(
            "SELECT number, first, count, text FROM tokens ORDER BY number, first"
        ):
            pieces.setdefault(number, []).append((first, count, text.decode()))
        for row in self._connection.execute(
            "SELECT number, id, accept_time, body, end_time, outcome, text, boundaries FROM requests"
            " ORDER BY number"
        ):
            yield Entry(
                number=row[0],
                id=row[1],
                accept_time=row[2],
                body=row[3],
                pieces=pieces.get(row[0], []),
                end_time=row[4],
                outcome=row[5],
                text=(row[6] or b"").decode(),
                boundaries=row[7] or b"",
            )

    def write(self, batch: Batch) -> None:
        """Records a batch: all of it, and for good, once this returns.

        Raises:
            sqlite3.Error: nothing of it was recorded.
        """
        ended = {row[0] for row in batch.ended}
        gone = set(batch.forgotten)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            # First, since a request that is accepted may have the id of one that is forgotten.
            self._delete(_FORGET, gone)
            self._insert(_ACCEPT, ((n, i, t, body) for n, i, t, body in batch.accepted))
            self._insert(
                _TOKENS,
                (
                    (number, first, count, "".join(texts).encode())
                    for number, (first, count, texts) in batch.tokens.items()
                    if number not in ended and number not in gone
                ),
            )
            self._insert(
                _END,
                (
                    (number, time, outcome, text.encode(), boundaries)
                    for number, time, outcome, text, boundaries in batch.ended
                ),
            )
            self._delete(_DROP_TOKENS, ended | gone)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Leaves the file as small as it gets."""
        self._connection.close()
        os.close(self._lock)

    def _delete(self, statement: str, numbers: set[int]) -> None:
        if numbers:
            self._connection.execute(statement, (orjson.dumps(list(numbers)).decode(),))

    def _insert(self, statement: str, rows: Iterator[tuple[object, ...]]) -> None:
        """Runs a statement on rows whose bytes are passed as one blob, by place and length."""
        # Never empty: SQLite takes an empty one for NULL.
        packed, blob = [], bytearray(1)
        for row in rows:
            values: list[object] = []
            for value in row:
                if isinstance(value, bytes):
                    values += [len(blob) + 1, len(value)]
                    blob += value
                else:
                    values.append(value)
            packed.append(values)
        if packed:
            self._connection.execute(statement, (orjson.dumps(packed).decode(), blob))


def _damaged(path: Path, error: Exception) -> JournalError:
    return JournalError(
        f"journal {path} cannot be read ({error}). If it is damaged, move it and its -wal and -shm files away"
        " (its requests are lost) or restore them; then start again"
    )


def _lock(path: Path) -> int:
    try:
        descriptor = os.open(path.with_name(path.name + ".lock"), _FLAGS, 0o600)
    except OSError as error:
        raise JournalError(f"journal {path} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise JournalError(f"journal {path} is in use by another server: give each server its own") from None
    return descriptor


def _open(path: Path) -> sqlite3.Connection:
    try:
        os.close(os.open(path, _FLAGS, 0o600))
    except OSError as error:
        raise JournalError(f"journal {path} cannot be written: {error.strerror}") from error
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    problems = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
    if problems != ["ok"]:
        raise sqlite3.DatabaseError(problems[0])
    connection.execute("PRAGMA journal_mode = WAL")
    # In WAL mode, FULL makes each commit wait until it is on the disk.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_SCHEMA}; COMMIT;")
    elif version != _SCHEMA:
        raise JournalError(
            f"journal {path} has schema {version}, this server writes {_SCHEMA}: give it a file of its own"
        )
