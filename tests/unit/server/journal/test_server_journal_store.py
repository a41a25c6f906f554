"""The journal's file: what goes in comes out, a batch whole or not at all, and damage is no data."""

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given, settings

from rankserve.server.journal.store import Batch, Entry, JournalError, JournalStore

TIME = 1_764_000_000.125
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def store(path: Path) -> Iterator[JournalStore]:
    store = JournalStore(path)
    yield store
    store.close()


def accepted(*numbers: int) -> Batch:
    return Batch(accepted=[(number, f"r{number}", TIME, b"body") for number in numbers])


def read_again(path: Path) -> list[Entry]:
    store = JournalStore(path)
    try:
        return list(store.entries())
    finally:
        store.close()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@example(texts=["\0", "\U0001f600", "a\0b", ""], outcome="\0\U0001f600", body=b"\0\xff")
@example(texts=[""], outcome="", body=b"")
@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=6), outcome=ANY_TEXT, body=st.binary(max_size=40))
def test_any_text_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], outcome: str, body: bytes
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    store = JournalStore(path)
    store.write(Batch(accepted=[(1, "live", TIME, body), (2, "ended", TIME, body)]))
    for first, text in enumerate(texts):
        batch = Batch()
        batch.add_tokens(1, first, 1, text)
        store.write(batch)
    store.write(Batch(ended=[(2, TIME + 1, outcome.encode(), "".join(texts), b"\0\1")]))
    store.close()
    live, ended = read_again(path)
    assert live == Entry(1, "live", TIME, body, [(n, 1, t) for n, t in enumerate(texts)], None, None, "", b"")
    assert ended == Entry(2, "ended", TIME, body, [], TIME + 1, outcome, "".join(texts), b"\0\1")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moment=st.floats(1.5e9, 4e9))
def test_times_come_back_to_the_microsecond(tmp_path_factory: pytest.TempPathFactory, moment: float) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    store = JournalStore(path)
    store.write(Batch(accepted=[(1, "a", moment, b"")]))
    (entry,) = store.entries()
    store.close()
    assert abs(entry.accept_time - moment) < 1e-6


def test_pieces_of_one_batch_become_one_and_keep_their_order(store: JournalStore) -> None:
    store.write(accepted(1, 2))
    for first in (0, 3):
        batch = Batch()
        for token in range(first, first + 3):
            batch.add_tokens(2, token, 1, f"<{token}>")
            batch.add_tokens(1, token, 1, f"[{token}]")
        store.write(batch)
    one, two = store.entries()
    assert one.pieces == [(0, 3, "[0][1][2]"), (3, 3, "[3][4][5]")]
    assert two.pieces == [(0, 3, "<0><1><2>"), (3, 3, "<3><4><5>")]


def test_entries_come_in_the_order_of_acceptance(store: JournalStore) -> None:
    for numbers in ((3,), (1, 7), (5, 2)):
        store.write(accepted(*numbers))
    assert [entry.number for entry in store.entries()] == [1, 2, 3, 5, 7]


def test_one_batch_can_take_a_request_from_acceptance_to_its_end(store: JournalStore) -> None:
    batch = accepted(1)
    batch.add_tokens(1, 0, 2, "so the")
    batch.ended.append((1, TIME, b"{}", "so the", b""))
    store.write(batch)
    (entry,) = store.entries()
    assert (entry.outcome, entry.text, entry.pieces) == ("{}", "so the", [])


def test_what_ended_keeps_no_pieces_and_what_is_forgotten_keeps_nothing(store: JournalStore) -> None:
    batch = accepted(1, 2)
    batch.add_tokens(1, 0, 1, "so")
    batch.add_tokens(2, 0, 1, "so")
    store.write(batch)
    store.write(Batch(ended=[(1, TIME, b"{}", "so", b"")]))
    assert [entry.pieces for entry in store.entries()] == [[], [(0, 1, "so")]]
    store.write(Batch(forgotten=[1, 2]))
    assert list(store.entries()) == []


def test_an_id_can_be_used_again_in_the_batch_that_forgets_it(store: JournalStore) -> None:
    store.write(accepted(1))
    store.write(Batch(ended=[(1, TIME, b"{}", "", b"")]))
    store.write(Batch(accepted=[(2, "r1", TIME, b"again")], forgotten=[1]))
    assert [(entry.number, entry.id, entry.body) for entry in store.entries()] == [(2, "r1", b"again")]


def test_of_a_batch_that_fails_nothing_is_kept_and_the_next_is(store: JournalStore) -> None:
    store.write(accepted(1))
    batch = accepted(2)
    batch.add_tokens(2, 0, 1, "so")
    batch.accepted.append((3, "r1", TIME, b"an id that is taken"))
    with pytest.raises(sqlite3.IntegrityError):
        store.write(batch)
    assert [entry.id for entry in store.entries()] == ["r1"]
    store.write(accepted(2))
    assert [entry.id for entry in store.entries()] == ["r1", "r2"]


def test_what_was_written_outlives_a_process_that_is_killed(path: Path) -> None:
    write = (
        "import os, sys; from pathlib import Path; from rankserve.server.journal.store import *\n"
        "store = JournalStore(Path(sys.argv[1]))\n"
        "store.write(Batch(accepted=[(1, 'r1', 0.0, b'body')]))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", write, str(path)], check=False, timeout=60)
    assert path.with_name("journal-wal").stat().st_size > 0, "it must not have closed the file"
    assert [entry.id for entry in read_again(path)] == ["r1"]


def test_a_file_belongs_to_one_process(path: Path, store: JournalStore) -> None:
    use = (
        "import sys; from pathlib import Path; from rankserve.server.journal.store import *\n"
        "try:\n    JournalStore(Path(sys.argv[1]))\n"
        "except JournalError as error:\n    print(error)\n"
    )
    link = path.with_name("link")
    link.symlink_to(path)
    for name in (path, link):
        result = subprocess.run(
            [sys.executable, "-c", use, str(name)], capture_output=True, text=True, timeout=60, check=True
        )
        assert "is in use by another server: give each server its own" in result.stdout


def test_a_closed_file_can_be_opened_again_and_leaves_no_wal(path: Path) -> None:
    JournalStore(path).close()
    assert not path.with_name("journal-wal").exists()
    JournalStore(path).close()


def test_only_its_owner_may_read_it(path: Path, store: JournalStore) -> None:
    store.write(accepted(1))
    files = sorted(path.parent.glob("journal*"))
    assert len(files) == 4
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


# Damage


def filled(path: Path) -> Path:
    """A closed journal of many pages."""
    store = JournalStore(path)
    store.write(Batch(accepted=[(n, f"r{n}", TIME, b"body" * 200) for n in range(1, 200)]))
    store.write(Batch(ended=[(n, TIME, b"{}", "text" * 100, b"") for n in range(1, 100)]))
    store.close()
    return path


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_amid_a_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def no_database(path: Path) -> None:
    path.write_bytes(b"these are not the bytes of a database" * 200)


def overwrite(page: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(4096 * page)
            file.write(Random(page).randbytes(4096))

    damage.__name__ = f"overwrite_page_{page}"
    return damage


@pytest.mark.parametrize(
    "damage", [cut_short, cut_amid_a_page, no_database, overwrite(0), overwrite(1), overwrite(7)]
)
def test_a_damaged_file_is_refused_and_the_message_says_what_to_do(
    path: Path, damage: Callable[[Path], None]
) -> None:
    damage(filled(path))
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(JournalError, match="move it and its -wal and -shm files away"):
            read_again(path)
    assert path.read_bytes() == before, "what may be rescued must not be touched"


def test_bytes_that_are_no_text_are_damage_too(path: Path) -> None:
    connection = sqlite3.connect(filled(path))
    connection.execute("UPDATE requests SET text = x'ff' WHERE number = 1")
    connection.commit()
    connection.close()
    with pytest.raises(JournalError, match="If it is damaged"):
        read_again(path)


def test_a_torn_wal_keeps_every_batch_before_the_tear(path: Path) -> None:
    """What SQLite does when the machine died amid a write: a commit counts wholly or not at all."""
    script = (
        "import os, sys; from pathlib import Path; from rankserve.server.journal.store import *\n"
        "store = JournalStore(Path(sys.argv[1]))\n"
        "for n in range(1, 21):\n"
        "    first, second = (n, f'r{n}', 0.0, b'body' * 100), (100 + n, f'r{100 + n}', 0.0, b'')\n"
        "    store.write(Batch(accepted=[first, second]))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=60)
    wal = path.with_name("journal-wal")
    os.truncate(wal, wal.stat().st_size * 2 // 3)
    numbers = [entry.number for entry in read_again(path)]
    count = len(numbers) // 2
    assert 0 < count < 20
    assert numbers == [*range(1, count + 1), *range(101, 101 + count)]


def test_the_schema_of_a_newer_release_is_refused(path: Path) -> None:
    connection = sqlite3.connect(filled(path))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(JournalError, match="has schema 99, this server writes 1: give it a file of its own"):
        JournalStore(path)


def test_the_database_of_another_program_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (name TEXT)")
    connection.close()
    with pytest.raises(JournalError, match="give it a file of its own"):
        JournalStore(path)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be written: No such file or directory"):
        JournalStore(tmp_path / "missing" / "journal")


def test_a_path_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    with pytest.raises(JournalError, match="cannot be written: Is a directory"):
        JournalStore(tmp_path / "journal")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(JournalError, match="cannot be written: Permission denied"):
            JournalStore(tmp_path / "journal")
    finally:
        tmp_path.chmod(0o700)


def test_a_file_that_was_refused_is_not_left_locked(path: Path) -> None:
    no_database(path)
    with pytest.raises(JournalError):
        JournalStore(path)
    path.unlink()
    JournalStore(path).close()
