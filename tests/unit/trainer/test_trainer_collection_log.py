"""The log of a collection: what it gives back after any end, and whom it refuses."""

import errno
import json
import os
from pathlib import Path

import pytest

from rankserve.records.jsonl import RecordError
from rankserve.trainer.collection.answers import Answer
from rankserve.trainer.collection.errors import CollectionError
from rankserve.trainer.collection.log import SampleLog, log_path
from rankserve.trainer.collection.prompts import Message, Prompt
from rankserve.trainer.collection.sampling import Sampling

SETTINGS = Sampling("m", max_tokens=100, temperature=0.5).comparable()


def prompt(name: str, text: str = "") -> Prompt:
    return Prompt(name, (Message("user", text or f"about {name}"),))


def answer(tokens: int) -> Answer:
    return Answer(tokens, censored=tokens >= 100, input_tokens=4, latency_s=0.25)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log with two samples of "a", a refusal of "b" and one of "c" that got no answer."""
    path = tmp_path / "deep" / "out.jsonl.samples"
    with SampleLog(path, SETTINGS) as log:
        for name, sample in (("a", 0), ("a", 1), ("b", 0), ("c", 0)):
            log.sent(prompt(name), sample)
        log.answered(prompt("a"), 1, answer(100))
        log.answered(prompt("a"), 0, answer(7))
        log.refused(prompt("b"), "HTTP 400: too long")
    return path


def test_what_was_recorded_comes_back(path: Path) -> None:
    with SampleLog(path, SETTINGS) as log:
        assert log.recorded.answers(prompt("a"), 2) == [answer(7), answer(100)]
        assert log.recorded.answers(prompt("a"), 1) == [answer(7)]
        assert log.recorded.refusal(prompt("b")) == "HTTP 400: too long"
        assert ("c", 0) in log.recorded.unanswered
        assert ("a", 0) not in log.recorded.unanswered


def test_neither_prompts_nor_answers_are_in_it(path: Path) -> None:
    assert "about" not in path.read_text()


def test_cut_at_any_byte_it_gives_back_every_whole_line_and_goes_on(path: Path) -> None:
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        before = [json.loads(line) for line in whole[:size].splitlines(keepends=True) if line.endswith(b"\n")]
        kept = sum("output_tokens" in line for line in before)
        with SampleLog(path, SETTINGS) as log:
            assert sum(len(entry.answers) for entry in log.recorded.prompts.values()) == kept
            log.answered(prompt("z"), 0, answer(3))
        with SampleLog(path, SETTINGS) as log:
            assert log.recorded.answers(prompt("z"), 1) == [answer(3)]
            assert sum(len(entry.answers) for entry in log.recorded.prompts.values()) == kept + 1


def test_zeros_that_a_power_failure_left_at_the_end_are_dropped(path: Path) -> None:
    good = path.stat().st_size
    with path.open("ab") as file:
        file.write(bytes(4096))
    with SampleLog(path, SETTINGS):
        assert path.stat().st_size == good


@pytest.mark.parametrize(
    "line", ["{nonsense}", "[]", '{"id": "a"}', '{"id": "a", "sample": -1, "sent": true}']
)
def test_a_damaged_line_is_named(path: Path, line: str) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], line, *lines[3:], ""]))
    with pytest.raises(RecordError, match="remove the line") as error:
        SampleLog(path, SETTINGS)
    assert error.value.line == 4
    assert path.read_text().splitlines()[4:] == lines[3:], "a log that cannot be read must not be cut"


@pytest.mark.parametrize(
    "content", ["notes", "notes\n", '{"id": "a"}\n', '{"schema": "rankserve.collection/9"}\n']
)
def test_another_file_in_its_place_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "out.samples"
    path.write_text(content)
    with pytest.raises(CollectionError, match="in the way"):
        SampleLog(path, SETTINGS)
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"model": "other"}, "model 'm'"),
        ({"temperature": 0.6}, r"temperature 0\.5"),
        ({"max_tokens": 50}, "max_tokens 100"),
        ({"top_p": 0.9}, "top_p None"),
        ({"api": "completions"}, "api 'chat'"),
        ({"extra": {"top_k": 3}}, "extra {}"),
    ],
)
def test_samples_drawn_otherwise_are_not_mixed(path: Path, changed: dict[str, object], told: str) -> None:
    before = path.read_bytes()
    with pytest.raises(CollectionError, match=told):
        SampleLog(path, {**SETTINGS, **changed})
    assert path.read_bytes() == before


def test_settings_may_change_while_nothing_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "out.samples"
    with SampleLog(path, SETTINGS) as log:
        log.sent(prompt("a"), 0)
    with SampleLog(path, {**SETTINGS, "model": "other"}) as log:
        log.answered(prompt("a"), 0, answer(3))
    with pytest.raises(CollectionError, match="model 'other'"):
        SampleLog(path, SETTINGS)


def test_a_log_with_nothing_in_it_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "out.samples"
    with SampleLog(path, SETTINGS):
        assert path.exists()
    assert not path.exists()


def test_one_process_at_a_time(path: Path) -> None:
    with SampleLog(path, SETTINGS), pytest.raises(CollectionError, match="another process"):
        SampleLog(path, SETTINGS)
    with SampleLog(path, SETTINGS):
        pass


def test_another_prompt_under_a_recorded_id_is_refused(path: Path) -> None:
    with SampleLog(path, SETTINGS) as log:
        log.recorded.check([prompt("a"), prompt("new")], path)
        with pytest.raises(CollectionError, match="'a' is another"):
            log.recorded.check([prompt("a", "changed")], path)


def test_refusals_are_forgotten_when_asked(path: Path) -> None:
    with SampleLog(path, SETTINGS) as log:
        log.retry_failed()
    with SampleLog(path, SETTINGS) as log:
        assert log.recorded.refusal(prompt("b")) == ""
        log.refused(prompt("b"), "still")
    with SampleLog(path, SETTINGS) as log:
        assert log.recorded.refusal(prompt("b")) == "still"


def test_every_line_is_in_the_file_before_the_next_and_synced_in_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    log = SampleLog(log_path(tmp_path / "out.jsonl"), SETTINGS, clock=lambda: 0.0)
    monkeypatch.setattr("os.fsync", synced.append)
    for number in range(130):
        log.answered(prompt("a"), number, answer(3))
        assert len(log.path.read_bytes().splitlines()) == number + 2
    assert len(synced) == 2
    log.close()
    assert len(synced) == 3


def test_a_full_disk_leaves_no_half_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = path.read_bytes(), os.write
    calls = 0

    def full(file: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data[:10])

    with SampleLog(path, SETTINGS) as log:
        with monkeypatch.context() as patched:
            patched.setattr("os.write", full)
            with pytest.raises(OSError, match="No space"):
                log.answered(prompt("c"), 0, answer(3))
        assert path.read_bytes() == before
        assert log.recorded.answers(prompt("c"), 1) == [], "recorded, but not in the log"
        log.answered(prompt("c"), 0, answer(3))
    with SampleLog(path, SETTINGS) as log:
        assert log.recorded.answers(prompt("c"), 1) == [answer(3)]
