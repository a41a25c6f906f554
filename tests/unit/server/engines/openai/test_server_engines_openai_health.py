"""Circuit breaker, and how many requests an endpoint is given."""

import random

import pytest

from rankserve.server.engines.openai.breaker import Breaker, Circuit
from rankserve.server.engines.openai.in_flight import InFlightLimit, Load


@pytest.fixture
def changes() -> list[Circuit]:
    return []


@pytest.fixture
def breaker(changes: list[Circuit]) -> Breaker:
    return Breaker(changes.append)


def test_it_opens_after_three_failures_in_a_row(breaker: Breaker, changes: list[Circuit]) -> None:
    for _ in range(2):
        breaker.failed()
    breaker.began()
    for _ in range(2):
        breaker.failed()
    assert breaker.state is Circuit.CLOSED
    breaker.failed()
    assert changes == [Circuit.OPEN]


def test_an_old_answer_that_goes_on_does_not_make_up_for_new_ones_that_fail(breaker: Breaker) -> None:
    for _ in range(3):
        breaker.failed()
        breaker.lives()
        breaker.healthy()
    assert breaker.state is not Circuit.CLOSED


def test_health_checks_that_are_missed_now_and_then_or_while_it_answers_do_not_count(
    breaker: Breaker, changes: list[Circuit]
) -> None:
    for well in (breaker.healthy, breaker.lives):
        for _ in range(9):
            breaker.missed()
            breaker.missed()
            well()
    assert changes == []
    for _ in range(3):
        breaker.missed()
    assert changes == [Circuit.OPEN]


def test_where_nobody_is_it_opens_at_once(breaker: Breaker) -> None:
    breaker.failed(for_sure=True)
    assert breaker.state is Circuit.OPEN


def test_a_good_health_check_lets_one_request_try_and_that_decides(
    breaker: Breaker, changes: list[Circuit]
) -> None:
    breaker.healthy()
    assert changes == []
    breaker.failed(for_sure=True)
    breaker.healthy()
    breaker.failed()
    breaker.healthy()
    breaker.began()
    assert changes == [Circuit.OPEN, Circuit.HALF_OPEN, Circuit.OPEN, Circuit.HALF_OPEN, Circuit.CLOSED]


def test_a_given_limit_stays() -> None:
    limit = InFlightLimit(5)
    for _ in range(10):
        limit.loaded(Load(5, 9), 5)
        limit.busy(5)
    assert limit.value == 5


class Engine:
    """A batch of so many, and a queue."""

    def __init__(self, slots: int, others: int = 0) -> None:
        self.slots = slots
        self.others = others

    def load(self, in_flight: int) -> Load:
        there = in_flight + self.others
        return Load(min(there, self.slots), max(0, there - self.slots))


@pytest.mark.parametrize("slots", [1, 4, 16, 200])
def test_with_a_load_to_read_the_batch_is_filled_and_hardly_anybody_waits_in_it(slots: int) -> None:
    engine, limit = Engine(slots), InFlightLimit()
    for _ in range(60):
        limit.loaded(engine.load(limit.value), limit.value)
    seen = []
    for _ in range(60):
        limit.loaded(engine.load(limit.value), limit.value)
        seen.append(limit.value)
    assert min(seen) >= slots
    assert sorted(seen)[len(seen) // 2] <= slots * 1.25 + 2


def test_it_makes_room_for_requests_of_others() -> None:
    engine, limit = Engine(16), InFlightLimit()
    for _ in range(60):
        limit.loaded(engine.load(limit.value), limit.value)
    engine.others = 10
    for _ in range(10):
        limit.loaded(engine.load(limit.value), limit.value)
    assert limit.value <= 9


def test_one_look_at_a_burst_says_nothing() -> None:
    limit = InFlightLimit()
    limit.loaded(Load(0, 8), 8)
    limit.loaded(Load(8, 0), 8)
    assert limit.value > 8


def test_without_a_load_to_read_slow_first_tokens_tell_that_the_batch_is_full() -> None:
    draw = random.Random(1)
    limit = InFlightLimit()
    slots, step_s = 16, 0.05
    seen = []
    for _ in range(4000):
        in_flight = limit.value
        waiting = max(0, in_flight - slots)
        # Somebody who waits behind others waits for as many of the running to end.
        waits_s = 0.0 if draw.random() > waiting / in_flight else waiting * draw.uniform(2, 6) * step_s
        limit.first_token(step_s * draw.uniform(0.8, 1.6) + waits_s, in_flight)
        seen.append(limit.value)
    settled = sorted(seen[1000:])
    assert 10 <= settled[len(settled) // 2] <= 20


def test_a_refusal_lowers_the_limit_and_never_below_one() -> None:
    limit = InFlightLimit()
    limit.busy(8)
    assert limit.value == 6
    for _ in range(20):
        limit.busy(1)
    assert limit.value == 1
