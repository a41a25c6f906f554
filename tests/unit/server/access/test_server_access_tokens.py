"""Whose token it is, also while the file changes."""

import asyncio
import hmac
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rankserve.server import watched_files
from rankserve.server.access.tokens import TokenStore
from rankserve.server.admission import WaitingLimits

FIRST = "the-first-of-the-tokens"
SECOND = "the-second-of-the-tokens"
THIRD = "the-third-of-the-tokens"


def content(*tokens: str) -> str:
    return "\n".join(
        f'[[token]]\nname = "holder-{n}"\ntoken = "{token}"\nroles = ["submit"]'
        for n, token in enumerate(tokens)
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    path.write_text(content(FIRST, SECOND))
    path.chmod(0o600)
    return path


def holder(store: TokenStore, token: str) -> str | None:
    principal = store.find(token)
    return principal.name if principal is not None else None


def test_each_token_has_its_holder_and_others_none(path: Path) -> None:
    store = TokenStore(path)
    assert holder(store, FIRST) == "holder-0"
    assert holder(store, SECOND) == "holder-1"
    for wrong in ("", FIRST[:-1], FIRST + "x", FIRST.upper(), "ä" * 20, "\udcff" * 20, "\0", "x" * 100_000):
        assert store.find(wrong) is None


def test_every_token_is_compared_whichever_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TokenStore(path)
    compared = 0

    def count(one: bytes, other: bytes) -> bool:
        nonlocal compared
        compared += 1
        assert len(one) == len(other) == 32
        return compare(one, other)

    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", count)
    for token in (FIRST, SECOND, "nobody's-token-at-all"):
        compared = 0
        store.find(token)
        assert compared == 2


def test_limits_of_a_tenant_are_those_of_the_file_before_the_default(path: Path) -> None:
    path.write_text(f'{content(FIRST)}\n[[tenant]]\nname = "a"\nmax_waiting = 7\n[[tenant]]\nname = "b"')
    store = TokenStore(path, WaitingLimits(100, 200))
    assert store.tenant_limits("a") == WaitingLimits(7, 200)
    assert store.tenant_limits("b") == WaitingLimits(100, 200)
    assert store.tenant_limits("unheard-of") == WaitingLimits(100, 200)
    assert TokenStore(path).tenant_limits("b") == WaitingLimits(None, None)


def test_a_new_file_counts_at_once(path: Path) -> None:
    store = TokenStore(path)
    path.write_text(content(SECOND, THIRD))
    with capture_logs() as logs:
        assert store.reload()
    assert store.find(FIRST) is None
    assert holder(store, THIRD) == "holder-1"
    assert logs == [
        {"event": "token_file_loaded", "log_level": "info", "tokens": ["holder-0", "holder-1"]},
    ]


@pytest.mark.parametrize("broken", ["", content(THIRD)[:-4], content("short"), content(THIRD, THIRD), None])
def test_a_broken_new_file_changes_nothing_and_is_logged_without_its_tokens(
    path: Path, broken: str | None
) -> None:
    store = TokenStore(path)
    if broken is None:
        path.unlink()
    else:
        path.write_text(broken)
    with capture_logs() as logs:
        assert not store.reload()
    assert holder(store, FIRST) == "holder-0"
    assert store.find(THIRD) is None
    [line] = logs
    assert (line["event"], line["log_level"]) == ("token_file_unusable", "error")
    assert str(path) in line["problem"]
    assert "of-the-tokens" not in repr(line)


async def test_changes_are_noticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_files, "INTERVAL_S", 0.001)
    store = TokenStore(path)
    watching = asyncio.create_task(store.watch())

    async def until_holder_of(token: str, name: str | None) -> None:
        async with asyncio.timeout(20):
            while holder(store, token) != name:
                await asyncio.sleep(0.001)

    # Written to; replaced by a file of the same size and time; gone and back.
    path.write_text(content(SECOND, FIRST))
    await until_holder_of(SECOND, "holder-0")
    beside = path.with_name("beside")
    beside.write_text(content(FIRST, SECOND))
    beside.chmod(0o600)
    status = path.stat()
    os.utime(beside, ns=(status.st_atime_ns, status.st_mtime_ns))
    beside.rename(path)
    await until_holder_of(SECOND, "holder-1")
    path.unlink()
    path.write_text(content(THIRD))
    await until_holder_of(THIRD, "holder-0")
    assert not watching.done()
    watching.cancel()


def test_a_swapped_link_is_noticed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokens.toml").write_text(content(FIRST))
    link = tmp_path / "data"
    link.symlink_to("one")
    watched = watched_files.WatchedFiles(link / "tokens.toml")
    assert watched.changed()
    assert not watched.changed()
    link.unlink()
    link.symlink_to("two")
    assert watched.changed()


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o604, True)])
def test_a_file_that_others_may_read_is_warned_of(path: Path, mode: int, warned: bool) -> None:
    path.chmod(mode)
    with capture_logs() as logs:
        TokenStore(path)
    assert [line["event"] for line in logs] == ["token_file_readable_by_others"] * warned
