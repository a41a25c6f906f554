"""Tries again: how often, after how long, and what one response makes everybody wait for."""

import asyncio
import random

import pytest

from rankserve.trainer.collection.answers import Answer
from rankserve.trainer.collection.errors import EndpointError, PromptRefusedError, UnansweredError
from rankserve.trainer.collection.prompts import Message, Prompt
from rankserve.trainer.collection.retries import Backoff, Retrying

PROMPT = Prompt("p", (Message("user", "x"),))
ANSWER = Answer(7, False, None, 0.1)


class Clock:
    """Time that passes only while somebody sleeps; sleepers wake in order."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


class Script:
    """Raises or returns what it was given, one a request."""

    def __init__(self, *outcomes: Answer | Exception) -> None:
        self.outcomes = list(outcomes)

    async def __call__(self, prompt: Prompt, sample: int) -> Answer:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def retrying(script: Script, clock: Clock, retries: int = 6) -> Retrying:
    return Retrying(script, Backoff(retries), random.Random(0), sleep=clock.sleep, clock=clock)


async def test_waits_double_with_jitter_below_and_are_bounded() -> None:
    clock = Clock()
    subject = retrying(Script(*[UnansweredError("busy")] * 9, ANSWER), clock, retries=9)
    assert await subject.ask(PROMPT, 0) == ANSWER
    full_s = [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert all(full / 2 <= slept <= full for slept, full in zip(clock.slept, full_s, strict=True))
    assert len({slept / full for slept, full in zip(clock.slept, full_s, strict=True)}) == 9
    assert (subject.retried, subject.last_reason) == (9, "busy")


async def test_the_last_try_tells_why() -> None:
    clock = Clock()
    subject = retrying(Script(UnansweredError("one"), UnansweredError("two")), clock, retries=1)
    with pytest.raises(UnansweredError, match="two"):
        await subject.ask(PROMPT, 0)
    assert len(clock.slept) == 1


@pytest.mark.parametrize("error", [PromptRefusedError("400"), EndpointError("401")])
async def test_what_no_other_try_changes_is_not_tried_again(error: Exception) -> None:
    clock = Clock()
    with pytest.raises(type(error)):
        await retrying(Script(error, ANSWER), clock).ask(PROMPT, 0)
    assert clock.slept == []


async def test_everybody_waits_for_as_long_as_one_response_asks() -> None:
    clock = Clock()
    subject = retrying(Script(UnansweredError("429", retry_after_s=30.0), ANSWER, ANSWER), clock)
    await subject.ask(PROMPT, 0)
    assert clock.now_s >= 130.0
    fresh = Clock()
    fresh.now_s = 110.0
    subject.clock, subject.sleep = fresh, fresh.sleep
    await subject.ask(PROMPT, 1)
    assert fresh.now_s >= 130.0, "a request that was not refused itself did not wait"


async def test_a_pause_too_long_ends_the_run() -> None:
    with pytest.raises(EndpointError, match="86,400 s"):
        await retrying(Script(UnansweredError("429", retry_after_s=86_400.0)), Clock()).ask(PROMPT, 0)


async def test_many_tries_do_not_overflow() -> None:
    assert Backoff(10_000).wait_s(5_000, random.Random(0)) <= 60.0


async def test_a_cancelled_wait_is_not_another_try() -> None:
    async def forever(seconds: float) -> None:
        await asyncio.Event().wait()

    script = Script(UnansweredError("busy"), ANSWER)
    subject = Retrying(script, Backoff(), random.Random(0), sleep=forever)
    task = asyncio.ensure_future(subject.ask(PROMPT, 0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert script.outcomes == [ANSWER]
