import pytest

from rankserve.progress import Stage, duration
from rankserve.progress.units import speed


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_count_its_speed_and_what_is_left(clock: Clock) -> None:
    stage = Stage("reading", 1_000, "prompts", clock=clock)
    assert stage.beginning() == "reading starts, 1,000 prompts"
    for _ in range(10):
        clock.sleep(1)
        stage.advance(25, "loss 0.5")
    assert stage.position() == "reading: 250 of 1,000 prompts (25 %), 25/s, 30 s left, loss 0.5"
    clock.sleep(10)
    stage.advance(750)
    assert stage.end() == "reading: 1,000 prompts in 20 s, 50/s, loss 0.5"


def test_it_says_nothing_of_the_end_before_it_knows(clock: Clock) -> None:
    stage = Stage("reading", 1_000, "prompts", clock=clock)
    assert stage.position() == "reading: 0 of 1,000 prompts (0 %)"
    clock.sleep(0.1)
    stage.advance(1)
    assert stage.left_s() is None, "a first step is no measure of all others"
    clock.sleep(100)
    assert stage.left_s() is not None


def test_the_speed_is_that_of_the_last_minute(clock: Clock) -> None:
    stage = Stage("reading", 10_000, "prompts", clock=clock)
    for each in (1, 100):
        for _ in range(90):
            clock.sleep(1)
            stage.advance(each)
    assert ", 100/s, 9.1 s left" in stage.position()


def test_slow_steps_have_a_speed_too_which_falls_when_they_hang(clock: Clock) -> None:
    stage = Stage("training", 100, "steps", clock=clock)
    for _ in range(10):
        clock.sleep(120)
        stage.advance()
    assert ", 30.0/h, 3 h 00 min left" in stage.position()
    clock.sleep(100)
    assert ", 30.0/h, 3 h 00 min left" in stage.position(), "the next step is not late yet"
    clock.sleep(500)
    assert ", 15.0/h, 6 h 00 min left" in stage.position()


def test_what_an_earlier_process_did_is_no_speed_of_this_one(clock: Clock) -> None:
    stage = Stage("training", 1_000, "steps", 900, clock=clock)
    assert stage.beginning() == "training starts, 100 steps"
    clock.sleep(10)
    stage.advance(10)
    assert stage.position() == "training: 910 of 1,000 steps (91 %), 1.0/s, 1 min 30 s left"
    stage.advance(90)
    assert stage.end() == "training: 1,000 steps in 10 s, 10/s"


def test_a_stage_within_is_not_in_the_speed_but_in_what_is_left(clock: Clock) -> None:
    stage = Stage("training", 100, "steps", clock=clock)
    for _ in range(50):
        clock.sleep(1)
        stage.advance()
    stage.pause()
    clock.sleep(50)
    assert ", 1.0/s, 1 min 40 s left" in stage.position()
    stage.resume()
    assert ", 1.0/s, 1 min 40 s left" in stage.position()


def test_work_without_a_count_says_how_long_it_takes(clock: Clock) -> None:
    stage = Stage("tracing", clock=clock)
    assert stage.beginning() == "tracing starts"
    clock.sleep(75)
    assert stage.position() == "tracing: 1 min 15 s so far"
    assert stage.end() == "tracing: done in 1 min 15 s"
    assert stage.end(stopped=True) == "tracing: stopped after 1 min 15 s"


def test_work_of_unknown_size_has_no_end(clock: Clock) -> None:
    stage = Stage("reading", unit="prompts", clock=clock)
    clock.sleep(10)
    stage.reach(1_500)
    assert stage.position() == "reading: 1,500 prompts, 150/s"


def test_stopped_work_says_where(clock: Clock) -> None:
    stage = Stage("reading", 1_000, "prompts", clock=clock)
    clock.sleep(10)
    stage.advance(999)
    assert stage.end(stopped=True) == "reading: stopped at 999 of 1,000 prompts (99 %) after 10 s, 100/s"


def test_nothing_to_do_is_done(clock: Clock) -> None:
    assert Stage("reading", 0, "prompts", clock=clock).end() == "reading: 0 prompts in 0.0 s"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (11_100, "3 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("per_s", "text"), [(12_345.6, "12,346/s"), (1.25, "1.2/s"), (0.5, "30.0/min"), (0.001, "3.6/h")]
)
def test_speeds(per_s: float, text: str) -> None:
    assert speed(per_s) == text
