import io
import threading
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from rankserve.progress import Lines, report_on, report_to, stage, tell, track
from rankserve.progress.lines import LinesInTime, stamped
from rankserve.progress.live import Live


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_code_that_nobody_listens_to_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with stage("reading", 3, "prompts") as reading:
        reading.advance()
        tell("a line")
    assert capsys.readouterr() == ("", "")


def test_a_log_has_both_ends_of_a_stage_and_a_line_every_30_s() -> None:
    clock, lines = Clock(), list[str]()
    with report_to(Lines(lines.append, clock)), stage("reading", 100, "prompts") as reading:
        for _ in range(100):
            clock.now_s += 1
            reading.advance()
    assert lines == [
        "reading starts, 100 prompts",
        "reading: 30 of 100 prompts (30 %), 1.0/s, 1 min 10 s left",
        "reading: 60 of 100 prompts (60 %), 1.0/s, 40 s left",
        "reading: 90 of 100 prompts (90 %), 1.0/s, 10 s left",
        "reading: 100 prompts in 1 min 40 s, 1.0/s",
    ]


def test_of_stages_within_each_other_the_innermost_is_told_of() -> None:
    clock, lines = Clock(), list[str]()
    reporter = Lines(lines.append, clock)
    with report_to(reporter), stage("training", 2, "steps") as training:
        with stage("validating"):
            clock.now_s += 31
            reporter.look()
        for _ in range(2):
            clock.now_s += 14
            training.advance()
    assert lines == [
        "training starts, 2 steps",
        "validating starts",
        "validating: 31 s so far",
        "validating: done in 31 s",
        "training: 2 steps in 59 s, 4.3/min",
    ]


def test_work_that_fails_says_where_and_leaves_no_stage_behind() -> None:
    lines = list[str]()
    reporter = Lines(lines.append, Clock())
    with report_to(reporter):
        with suppress(KeyError), stage("reading", 3, "prompts") as reading:
            reading.advance()
            raise KeyError
        with stage("writing"):
            pass
    assert lines == [
        "reading starts, 3 prompts",
        "reading: stopped at 1 of 3 prompts (33 %) after 0.0 s",
        "writing starts",
        "writing: done in 0.0 s",
    ]


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "progress"]


def test_a_stage_that_nobody_ended_is_not_told_of_for_ever() -> None:
    stream = io.StringIO()
    with report_on(stream):
        begun = iter(track([1], "turning", "turns"))
        next(begun)
        [thread] = threads()
    thread.join(30)
    assert not thread.is_alive()


def test_a_thread_looks_while_a_stage_is_one_long_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LinesInTime, "_PERIOD_S", 0.001)
    clock, lines, told = Clock(), list[str](), threading.Event()

    def write(line: str) -> None:
        lines.append(line)
        if "so far" in line:
            told.set()

    with report_to(LinesInTime(write, clock)), stage("tracing"):
        [thread] = threads()
        clock.now_s = 31
        assert told.wait(30)
    assert lines == ["tracing starts", "tracing: 31 s so far", "tracing: done in 31 s"]
    thread.join(30)
    assert not thread.is_alive()


def test_lines_in_a_log_are_whole_and_have_their_time() -> None:
    stream = io.StringIO()
    stamped(stream, lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))("a line")
    assert stream.getvalue() == "2026-01-02T03:04:05Z a line\n"


def test_work_outlives_the_reader_of_its_log() -> None:
    stream = io.StringIO()
    with report_on(stream), stage("training"):
        stream.close()
        tell("a line")


def test_a_log_is_free_of_control_characters() -> None:
    stream = io.StringIO()
    with report_on(stream), stage("reading", 3, "prompts") as reading:
        reading.advance(3)
    assert all(character.isprintable() for character in stream.getvalue().replace("\n", ""))
    assert stream.getvalue().count("\n") == 2


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with report_on(stream), stage("reading"):
        pass
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_has_a_live_line_for_each_open_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    stream, clock = Terminal(), Clock()
    live = Live(stream, clock, refresh=False)
    with report_to(live):
        with stage("training", 100, "steps") as training:
            clock.now_s = 25
            training.advance(50)
            with stage("validating"):
                tell("a line [that] stays")
                shown = stream.getvalue()
        assert "training: 50 of 100 steps (50 %), 2.0/s, 25 s left" in shown
        assert "validating: 0.0 s so far" in shown
        assert "a line [that] stays\n" in shown
        stream.truncate(0)
        with stage("writing"):
            pass
    assert stream.getvalue().endswith("writing: done in 0.0 s\n")
    assert "training" not in stream.getvalue(), "it has ended"


def test_report_on_a_terminal_is_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with report_on(stream), stage("reading"):
        pass
    assert "\x1b[?25l" in stream.getvalue(), "the cursor is hidden meanwhile"
    assert stream.getvalue().rstrip().endswith("s")


def test_items_are_done_when_the_next_is_asked_for() -> None:
    lines = list[str]()
    reporter = Lines(lines.append, Clock(), every_s=0)
    with report_to(reporter):
        assert list(track([1, 2], "turning", "turns")) == [1, 2]
        with suppress(KeyError):
            for _ in track([1, 2], "turning", "turns"):
                raise KeyError
    assert lines == [
        "turning starts, 2 turns",
        "turning: 1 of 2 turns (50 %)",
        "turning: 2 turns",
        "turning: 2 turns in 0.0 s",
        "turning starts, 2 turns",
        "turning: stopped at 0 of 2 turns (0 %) after 0.0 s",
    ]
