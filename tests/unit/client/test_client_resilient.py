"""Submit streams that outlive their servers; async and sync alike."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from rankserve.client import (
    Accepted,
    AsyncSchedulerClient,
    ConnectionFailed,
    Draining,
    Event,
    Failed,
    Finished,
    InvalidRequest,
    Queued,
    Request,
    Retry,
    SchedulerClient,
    Tokens,
)
from rankserve.client._batching import batches
from rankserve.client._ledger import Ledger
from rankserve.client.testing import FakeServer

QUICK = Retry(attempts=100, first_backoff_s=0.01, max_backoff_s=0.05)
DRAINING = Draining("the server is shutting down", reason="DRAINING")

SubmitAll = Callable[..., list[Event]]


def no_more(_: Event) -> None:
    pass


@pytest.fixture(params=["async", "sync"])
def submit(request: pytest.FixtureRequest) -> SubmitAll:
    """All events of these requests on one resilient stream. ``during`` is called with each."""

    def sync(
        target: str | list[str],
        requests: Sequence[Request],
        during: Callable[[Event], None] = no_more,
        retry: Retry = QUICK,
    ) -> list[Event]:
        events = []
        with SchedulerClient(target) as client, client.submit(retry=retry) as stream:
            stream.send_many(requests)
            stream.done_sending()
            for event in stream:
                events.append(event)
                during(event)
        return events

    def asynchronous(
        target: str | list[str],
        requests: Sequence[Request],
        during: Callable[[Event], None] = no_more,
        retry: Retry = QUICK,
    ) -> list[Event]:
        async def collect() -> list[Event]:
            events = []
            async with AsyncSchedulerClient(target) as client, client.submit(retry=retry) as stream:
                await stream.send_many(requests)
                await stream.done_sending()
                async for event in stream:
                    events.append(event)
                    if during is not no_more:
                        await asyncio.to_thread(during, event)
            return events

        return asyncio.run(collect())

    return sync if request.param == "sync" else asynchronous


def requests(count: int, *, detached: bool = False, result_only: bool = False) -> list[Request]:
    return [
        Request(prompt="Hello", id=f"r{n}", detached=detached, result_only=result_only) for n in range(count)
    ]


def once(condition: Callable[[], object], work: Callable[[], None]) -> None:
    """Does something beside the test when a condition holds."""

    def run() -> None:
        while not condition():
            time.sleep(0.01)
        work()

    threading.Thread(target=run, daemon=True).start()


def assert_whole(events: list[Event], count: int) -> None:
    """Each request was accepted, queued and finished once, and has its text once."""
    for kind in (Accepted, Queued, Finished):
        ids = Counter(event.request_id for event in events if isinstance(event, kind))
        assert ids == Counter(f"r{n}" for n in range(count)), kind
    assert not [event for event in events if isinstance(event, Failed)]
    for n in range(count):
        text = "".join(e.text for e in events if isinstance(e, Tokens) and e.request_id == f"r{n}")
        assert text == "one two three"


def test_without_trouble_it_is_a_stream_like_any_other(server: FakeServer, submit: SubmitAll) -> None:
    assert_whole(submit(server.target, requests(1000)), 1000)
    assert [request.id for request in server.requests] == [f"r{n}" for n in range(1000)]


def test_what_a_draining_server_sends_away_goes_to_another(server: FakeServer, submit: SubmitAll) -> None:
    server.hold()
    with FakeServer(answer="one two three") as other:

        def drain() -> None:
            other.resume()
            server.drain()
            server.fail_waiting(DRAINING)

        other.drain()
        once(lambda: len(server.requests) == 20, drain)
        assert_whole(submit([server.target, other.target], requests(20)), 20)
        assert len(other.requests) == 20


def test_what_runs_at_a_draining_server_ends_there(server: FakeServer, submit: SubmitAll) -> None:
    server.hold()
    with FakeServer(answer="one two three") as other:
        other.drain()

        def drain() -> None:
            server.answer_part(2)
            other.resume()
            server.drain()
            time.sleep(0.2)
            server.release()

        once(lambda: len(server.requests) == 5, drain)
        assert_whole(submit([server.target, other.target], requests(5)), 5)
        assert other.requests == ()


def test_what_one_replica_cancelled_with_its_stream_goes_to_another(
    server: FakeServer, submit: SubmitAll
) -> None:
    server.hold()
    with FakeServer(answer="one two three") as other:
        other.drain()

        def cut() -> None:
            other.resume()
            server.break_streams()

        once(lambda: len(server.requests) == 10, cut)
        assert_whole(submit([server.target, other.target], requests(10)), 10)
        assert len(other.requests) == 10


def test_a_fault_of_the_client_itself_does_not_hide(
    server: FakeServer, submit: SubmitAll, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a fault")

    monkeypatch.setattr(Ledger, "take", fail)
    with pytest.raises(AssertionError, match="a fault"):
        submit(server.target, requests(1))


@pytest.mark.parametrize("detached", [False, True])
def test_a_restart_before_the_first_token(server: FakeServer, submit: SubmitAll, detached: bool) -> None:
    server.hold()

    def restart() -> None:
        server.stop()
        if not detached:
            server.forget()
        server.start()
        time.sleep(0.1)
        server.release()

    once(lambda: len(server.requests) == 10, restart)
    assert_whole(submit(server.target, requests(10, detached=detached)), 10)


def test_detached_requests_go_on_from_their_last_token(server: FakeServer, submit: SubmitAll) -> None:
    server.hold()
    seen: list[Event] = []

    def restart(event: Event) -> None:
        if isinstance(event, Tokens) and not seen:
            seen.append(event)
            server.stop()
            server.start()
            threading.Timer(0.2, server.release).start()

    once(lambda: len(server.requests) == 10, lambda: server.answer_part(2))
    assert_whole(submit(server.target, requests(10, detached=True), restart), 10)


def test_detached_requests_that_a_restart_lost_are_sent_again(server: FakeServer, submit: SubmitAll) -> None:
    server.hold()

    def restart() -> None:
        time.sleep(0.2)
        server.stop()
        server.forget()
        server.release()
        server.start()

    once(lambda: len(server.requests) == 10, restart)
    assert_whole(submit(server.target, requests(10, detached=True)), 10)


def test_a_connection_lost_amid_an_answer_fails_that_request_alone(
    server: FakeServer, submit: SubmitAll
) -> None:
    server.hold()

    def start_one() -> None:
        started = server.find("started")
        assert started is not None
        started.answer(server.answer, 2)

    def restart(event: Event) -> None:
        if isinstance(event, Tokens) and event.request_id == "started":
            server.stop()
            server.forget()
            server.release()
            server.start()

    once(lambda: len(server.requests) == 11, start_one)
    events = submit(server.target, [Request(prompt="Hello", id="started"), *requests(10)], restart)
    (failed,) = (event for event in events if isinstance(event, Failed))
    assert (failed.request_id, failed.output_tokens) == ("started", 2)
    assert isinstance(failed.error, ConnectionFailed)
    assert_whole([event for event in events if event.request_id != "started"], 10)


def test_attempts_are_bounded_for_each_request(server: FakeServer, submit: SubmitAll) -> None:
    server.refuse(DRAINING)
    few = Retry(attempts=3, first_backoff_s=0.01, max_backoff_s=0.01)
    events = submit(server.target, requests(3), retry=few)
    assert sorted(event.request_id for event in events) == ["r0", "r1", "r2"]
    for event in events:
        assert isinstance(event, Failed)
        assert isinstance(event.error, Draining)


def test_no_server_at_all_fails_each_request_once(server: FakeServer, submit: SubmitAll) -> None:
    server.stop()
    few = Retry(attempts=2, first_backoff_s=0.01, max_backoff_s=0.01)
    events = submit(server.target, requests(3), retry=few)
    assert sorted(event.request_id for event in events) == ["r0", "r1", "r2"]
    assert all(isinstance(e, Failed) and isinstance(e.error, ConnectionFailed) for e in events)


def test_an_id_under_way_and_a_bad_value_are_refused_before_anything_is_sent(server: FakeServer) -> None:
    server.hold()
    with SchedulerClient(server.target) as client, client.submit(retry=QUICK) as stream:
        stream.send(Request(prompt="Hello", id="a"))
        with pytest.raises(ValueError, match="'a' is under way"):
            stream.send_many([Request(prompt="Hello", id="b"), Request(prompt="Hello", id="a")])
        with pytest.raises(InvalidRequest):
            stream.send_many([Request(prompt="Hello", id="b"), Request(prompt="Hello", max_tokens=-1)])
        stream.done_sending()
        server.release()
        assert {event.request_id for event in stream} == {"a"}
        with pytest.raises(RuntimeError, match="done_sending"):
            stream.send(Request(prompt="Hello"))
    with pytest.raises(RuntimeError, match="inside"):
        next(stream)


async def test_leaving_an_async_stream_cancels_what_is_open(server: FakeServer) -> None:
    server.hold()
    async with AsyncSchedulerClient(server.target) as client:
        async with client.submit(retry=QUICK) as stream:
            await stream.send_many(requests(3))
            assert isinstance(await anext(stream), Accepted)
        for _ in range(500):
            if not (await client.stats()).waiting:
                return
            await asyncio.sleep(0.01)
    pytest.fail("requests live on")


def test_messages_are_bounded_by_count_and_bytes() -> None:
    def sizes(**bounds: int) -> list[int]:
        return [len(message.requests) for _, message in batches(requests(10), **bounds)]

    assert sizes() == [10]
    assert sizes(max_requests=4) == [4, 4, 2]
    one = batches(requests(1))[0][1].requests[0].ByteSize()
    assert sizes(max_bytes=3 * one) == [3, 3, 3, 1]
    assert sizes(max_bytes=1) == [1] * 10
