"""What is sent again, what never, and that nobody sees it twice; async and sync alike."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rankserve.client import (
    Accepted,
    AsyncSchedulerClient,
    ConnectionFailed,
    DeadlineExceeded,
    Draining,
    Event,
    Finished,
    InvalidRequest,
    Queued,
    ResourceExhausted,
    Retry,
    SchedulerClient,
    Timeout,
    Tokens,
    Unavailable,
)
from rankserve.client.testing import FakeServer

QUICK = Retry(attempts=50, first_backoff_s=0.01, max_backoff_s=0.05)
DRAINING = Draining("the server is shutting down", reason="DRAINING")

Generate = Callable[..., list[Event]]
During = Callable[[Event], None]


def no_more(_: Event) -> None:
    pass


@pytest.fixture(params=["async", "sync"])
def generate(request: pytest.FixtureRequest, server: FakeServer) -> Generate:
    """The events of one request to the server, by either client. ``during`` is called with each."""

    def sync(
        *, retry: Retry = QUICK, timeout: Timeout | None = None, during: During = no_more, **options: Any
    ) -> list[Event]:
        events = []
        with SchedulerClient(server.target, retry=retry, timeout=timeout or Timeout()) as client:
            for event in client.generate("Hello", id="a", **options):
                events.append(event)
                during(event)
        return events

    def asynchronous(
        *, retry: Retry = QUICK, timeout: Timeout | None = None, during: During = no_more, **options: Any
    ) -> list[Event]:
        async def collect() -> list[Event]:
            events = []
            timeouts = timeout or Timeout()
            async with AsyncSchedulerClient(server.target, retry=retry, timeout=timeouts) as client:
                async for event in client.generate("Hello", id="a", **options):
                    events.append(event)
                    await asyncio.to_thread(during, event)
            return events

        return asyncio.run(collect())

    return sync if request.param == "sync" else asynchronous


@pytest.fixture
def later() -> Iterator[Callable[[Callable[[], object], Callable[[], object]], None]]:
    """Does something once a condition holds, beside the test."""
    threads = []

    def do(condition: Callable[[], object], work: Callable[[], object]) -> None:
        def run() -> None:
            for _ in range(1000):
                if condition():
                    break
                time.sleep(0.01)
            work()

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield do
    for thread in threads:
        thread.join()


Later = Callable[[Callable[[], object], Callable[[], object]], None]


@pytest.mark.parametrize("error", [DRAINING, Unavailable("no journal", reason="JOURNAL_FAILED")])
def test_a_server_that_takes_nothing_now_is_tried_again(
    server: FakeServer, generate: Generate, error: Unavailable
) -> None:
    server.refuse(error)
    timer = threading.Timer(0.2, server.refuse, [None])
    timer.start()
    kinds = [type(event) for event in generate()]
    assert kinds == [Accepted, Queued, Tokens, Tokens, Finished]
    timer.join()


def test_attempts_are_bounded_and_the_last_error_is_raised(server: FakeServer, generate: Generate) -> None:
    server.refuse(DRAINING)
    with pytest.raises(Draining):
        generate(retry=Retry(attempts=3, first_backoff_s=0.01, max_backoff_s=0.01))


def test_a_bad_request_is_not_sent_again(server: FakeServer, generate: Generate) -> None:
    with pytest.raises(InvalidRequest):
        generate(max_tokens=0)


def test_a_connection_lost_before_the_first_token_is_made_again(
    server: FakeServer, generate: Generate, later: Later
) -> None:
    server.hold()

    def restart() -> None:
        server.stop()
        server.start()
        server.release()

    later(lambda: server.requests, restart)
    events = generate()
    assert [type(event) for event in events] == [Accepted, Queued, Tokens, Tokens, Finished]


def test_after_a_token_nothing_is_sent_again(server: FakeServer, generate: Generate, later: Later) -> None:
    server.hold()

    def cut(event: Event) -> None:
        if isinstance(event, Tokens):
            server.break_streams()

    later(lambda: server.requests, lambda: server.answer_part(2))
    with pytest.raises(ConnectionFailed):
        generate(during=cut)
    assert len(server.requests) == 1


def test_a_server_that_cancelled_what_it_thought_abandoned_is_a_lost_connection(
    server: FakeServer, generate: Generate, later: Later
) -> None:
    server.hold()
    later(lambda: server.requests, server.break_streams)
    with pytest.raises(ConnectionFailed):
        generate(retry=Retry(attempts=3, first_backoff_s=0.01))


def test_a_detached_request_goes_on_from_its_last_token(
    server: FakeServer, generate: Generate, later: Later
) -> None:
    server.hold()

    def restart() -> None:
        server.answer_part(2)
        time.sleep(0.2)
        server.stop()
        server.start()
        server.release()

    later(lambda: server.requests, restart)
    events = generate(detached=True)
    assert [type(event) for event in events] == [Accepted, Queued, Tokens, Tokens, Finished]
    assert "".join(event.text for event in events if isinstance(event, Tokens)) == "one two three"


def test_a_detached_request_that_a_restart_lost_is_sent_again(
    server: FakeServer, generate: Generate, later: Later
) -> None:
    server.hold()

    def restart_without_journal() -> None:
        time.sleep(0.2)
        server.stop()
        server.forget()
        server.start()
        later(lambda: server.requests, server.release)

    later(lambda: server.requests, restart_without_journal)
    events = generate(detached=True)
    assert [type(event) for event in events] == [Accepted, Queued, Tokens, Tokens, Finished]


def test_a_full_queue_is_an_error_unless_it_was_asked_to_wait(server: FakeServer, generate: Generate) -> None:
    server.refuse(ResourceExhausted("full", reason="QUEUE_FULL", retry_after_s=0.2))
    with pytest.raises(ResourceExhausted):
        generate()
    threading.Timer(0.1, server.refuse, [None]).start()
    started_s = time.monotonic()
    assert generate(retry=Retry(attempts=2, queue_full=True))
    # What the server asked for, not the shorter backoff.
    assert time.monotonic() - started_s >= 0.2


def test_the_timeout_holds_for_all_attempts_together(server: FakeServer, generate: Generate) -> None:
    server.refuse(DRAINING)
    with pytest.raises((Draining, DeadlineExceeded)):
        generate(timeout=Timeout(generate_s=0.2), retry=Retry(attempts=10**9, max_backoff_s=0.1))


def test_short_calls_reach_a_server_that_comes_back(server: FakeServer) -> None:
    retry = Retry(attempts=5, first_backoff_s=0.5, max_backoff_s=2.0)
    with SchedulerClient(server.target, retry=retry) as client:
        client.stats()
        server.stop()
        threading.Timer(0.3, server.start).start()
        assert client.stats().policy == "fcfs"


def test_backoffs_double_up_to_a_bound_and_are_spread() -> None:
    retry = Retry(first_backoff_s=0.1, max_backoff_s=0.5)
    assert [retry.backoff_s(attempt, lambda: 1.0) for attempt in (1, 2, 3, 4, 1000)] == [
        0.1,
        0.2,
        0.4,
        0.5,
        0.5,
    ]
    assert retry.backoff_s(1, lambda: 0.0) == 0.05


@pytest.mark.parametrize(
    "values", [{"attempts": 0}, {"first_backoff_s": 0}, {"first_backoff_s": 3.0, "max_backoff_s": 2.0}]
)
def test_a_retry_that_makes_no_sense_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Retry(**values)
