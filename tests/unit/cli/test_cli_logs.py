import io

import pytest

pytest.importorskip("structlog", reason="needs the extra server: pip install 'rankserve[server]'")

import structlog

from rankserve.cli.logs import log_to_stderr


def test_lines_go_to_the_stderr_of_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    log = structlog.get_logger("test")
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stderr", first)
    with log_to_stderr():
        log.warning("before")
    first_lines = first.getvalue()
    first.close()
    monkeypatch.setattr("sys.stderr", second)
    with log_to_stderr():
        log.warning("after")
    assert '"event": "before"' in first_lines
    assert '"event": "after"' in second.getvalue()
