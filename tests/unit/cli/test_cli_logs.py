"""Logs of commands: one form for all lines, nothing private, and no waiting for the reader."""

import asyncio
import io
import json
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

pytest.importorskip("structlog", reason="needs the extra server: pip install 'rankserve[server]'")

import structlog
from structlog.contextvars import bound_contextvars

from rankserve.cli.log_lines import LineWriter
from rankserve.cli.logs import log_to_stderr

SECRET = "the quick brown fox"


def logged(
    monkeypatch: pytest.MonkeyPatch, log: Callable[[Any], object], form: str = "json", level: str = "info"
) -> str:
    """What `log` writes, called with a logger of ours."""
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    with log_to_stderr(form, level):
        log(structlog.get_logger("rankserve.test"))
    return stderr.getvalue()


def only_line(text: str) -> dict[str, Any]:
    [line] = text.splitlines()
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_lines_go_to_the_stderr_of_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only_line(logged(monkeypatch, lambda log: log.warning("before")))["event"] == "before"
    assert only_line(logged(monkeypatch, lambda log: log.warning("after")))["event"] == "after"


def test_afterwards_logging_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level, structlog.is_configured()
    logged(monkeypatch, lambda log: log.warning("meanwhile"))
    assert (root.handlers[:], root.level, structlog.is_configured()) == before


def test_a_line_has_time_level_logger_and_the_id_of_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def log_within_a_call(log: Any) -> None:
        with bound_contextvars(request_id="r-1"):
            log.info("scored", tokens=5)
            logging.getLogger("grpc").warning("unexpected %s", "end")

    ours, theirs = map(json.loads, logged(monkeypatch, log_within_a_call).splitlines())
    assert ours.pop("timestamp").endswith("Z")
    assert ours == {
        "event": "scored",
        "tokens": 5,
        "level": "info",
        "logger": "rankserve.test",
        "request_id": "r-1",
    }
    assert theirs.pop("timestamp").endswith("Z")
    assert theirs == {
        "event": "unexpected end",
        "level": "warning",
        "logger": "grpc",
        "request_id": "r-1",
    }


def test_tracebacks_of_asyncio_are_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail_in_a_callback() -> None:
        def callback() -> None:
            raise RuntimeError("in a callback")

        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0)

    line = only_line(logged(monkeypatch, lambda _: asyncio.run(fail_in_a_callback())))
    assert line["logger"] == "asyncio"
    assert "RuntimeError: in a callback" in line["exception"]


def test_warnings_are_lines_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(_: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(False)
            logging.captureWarnings(True)
            warnings.warn("deprecated", stacklevel=1)

    assert only_line(logged(monkeypatch, warn))["logger"] == "py.warnings"


def test_debug_lines_of_other_libraries_are_never_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    def log_both(log: Any) -> None:
        log.debug("ours")
        logging.getLogger("h11").debug("theirs")

    assert only_line(logged(monkeypatch, log_both, level="debug"))["event"] == "ours"
    assert logged(monkeypatch, log_both, level="info") == ""


class Request:
    def __repr__(self) -> str:
        return SECRET


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": SECRET},
        {"Authorization": SECRET},
        {"token": SECRET},
        {"metadata": {"a": SECRET}},
        {"details": {"headers": {"x": SECRET}}},
        {"details": [{"text": SECRET}]},
        {"what": Request()},
        {"what": [Request()]},
        {"what": "authorization: Bearer " + SECRET.replace(" ", "-")},
    ],
    ids=str,
)
def test_what_is_private_is_withheld(
    monkeypatch: pytest.MonkeyPatch, form: str, fields: dict[str, object]
) -> None:
    text = logged(monkeypatch, lambda log: log.error("careless", **fields), form)
    assert "careless" in text
    assert SECRET not in text
    assert SECRET.replace(" ", "-") not in text


@pytest.mark.parametrize("form", ["json", "console"])
def test_tracebacks_show_no_local_variables(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    def fail(log: Any) -> None:
        prompt = " ".join(("the", "quick", "brown", "fox"))
        try:
            int(prompt[:0])
        except ValueError:
            log.exception("failed")

    text = logged(monkeypatch, fail, form)
    assert "ValueError" in text
    assert SECRET not in text


def test_what_is_not_private_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    fields: dict[str, object] = {"token_file": Path("a/b"), "output_tokens": 3, "ids": ["r-1"], "none": None}
    line = only_line(logged(monkeypatch, lambda log: log.info("fine", **fields)))
    assert {name: line[name] for name in fields} == {**fields, "token_file": "a/b"}


def test_a_line_that_cannot_be_formatted_shows_nothing_of_its_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = logged(monkeypatch, lambda _: logging.getLogger("careless").warning("%d", SECRET))
    assert "careless" in text
    assert SECRET not in text


def test_a_reader_that_stops_reading_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    received: list[str] = []

    def read() -> None:
        with open(read_end, encoding="utf-8") as pipe:  # noqa: PTH123 - a descriptor, no path
            received.extend(pipe)

    reader = Thread(target=read)
    with open(write_end, "w", encoding="utf-8") as stderr:  # noqa: PTH123
        monkeypatch.setattr("sys.stderr", stderr)
        with log_to_stderr("json"):
            log = structlog.get_logger("rankserve.test")
            for number in range(15_000):
                log.info("line", number=number)
            reader.start()
            while len(received) < 9_000:
                reader.join(0.01)
            log.info("last")
        monkeypatch.undo()
    reader.join()
    lines = [json.loads(line) for line in received]
    logged, missing, told = 0, 0, 0
    for line in lines:
        if line["event"] == "log_lines_lost":
            assert line["lines"] == missing > 0
            told, missing = told + missing, 0
        else:
            number = 15_000 if line["event"] == "last" else line["number"]
            missing += number - logged
            logged = number + 1
    assert (logged, missing) == (15_001, 0)
    assert told > 0


def test_lost_lines_are_told_although_the_first_room_is_for_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = iter([False, False, False, True, False, False, True, True, True])
    received: list[str] = []

    def put_if_there_is_room(_: LineWriter, line: str) -> bool:
        room = next(rooms)
        if room:
            received.append(line)
        return room

    monkeypatch.setattr(LineWriter, "put", put_if_there_is_room)

    def log_seven(log: Any) -> None:
        for number in range(7):
            log.info("line", number=number)

    logged(monkeypatch, log_seven)
    kept = [(line.get("number"), line.get("lines")) for line in map(json.loads, received)]
    assert kept == [(3, None), (5, None), (None, 4), (6, None)]


def test_a_reader_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "w", encoding="utf-8") as stderr:  # noqa: PTH123
        monkeypatch.setattr("sys.stderr", stderr)
        with log_to_stderr("json"):
            structlog.get_logger("rankserve.test").info("unread")
        monkeypatch.undo()


def test_a_command_ends_though_its_reader_has_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    with open(write_end, "w", encoding="utf-8") as stderr:  # noqa: PTH123
        monkeypatch.setattr("sys.stderr", stderr)
        with log_to_stderr("json"):
            structlog.get_logger("rankserve.test").info("x" * 1_000_000)
        monkeypatch.undo()
        os.close(read_end)
