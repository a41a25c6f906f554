"""Watching requests after a lost connection; async and sync alike."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from rankserve.client import (
    Accepted,
    AsyncSchedulerClient,
    ConnectionFailed,
    Draining,
    Event,
    Failed,
    Finished,
    NotFound,
    Queued,
    Request,
    RequestState,
    Retry,
    SchedulerClient,
    Timeout,
    Tokens,
    Unauthenticated,
)
from rankserve.client._watch_ledger import Unreachable, WatchLedger
from rankserve.client.testing import FakeServer

QUICK = Retry(first_backoff_s=0.01, max_backoff_s=0.05)

WatchAll = Callable[..., list[Event]]


@pytest.fixture(params=["async", "sync"])
def watch(request: pytest.FixtureRequest) -> WatchAll:
    """All events that either client sees. ``during`` is called with each."""

    def sync(
        target: str | list[str],
        ids: Sequence[str] | Mapping[str, int],
        during: Callable[[Event], None] = lambda _: None,
        reattach_s: float = 30.0,
    ) -> list[Event]:
        events = []
        with SchedulerClient(target, retry=QUICK, timeout=Timeout(reattach_s=reattach_s)) as client:
            for event in client.watch(ids):
                events.append(event)
                during(event)
        return events

    def asynchronous(
        target: str | list[str],
        ids: Sequence[str] | Mapping[str, int],
        during: Callable[[Event], None] = lambda _: None,
        reattach_s: float = 30.0,
    ) -> list[Event]:
        async def collect() -> list[Event]:
            events = []
            timeout = Timeout(reattach_s=reattach_s)
            async with AsyncSchedulerClient(target, retry=QUICK, timeout=timeout) as client:
                async for event in client.watch(ids):
                    events.append(event)
                    await asyncio.to_thread(during, event)
            return events

        return asyncio.run(collect())

    return sync if request.param == "sync" else asynchronous


def submit_detached(server: FakeServer, *ids: str, **options: Any) -> None:
    """Leaves requests at the server, as a client that went away."""
    server.hold()
    with SchedulerClient(server.target) as client, client.submit() as stream:
        stream.send_many(Request(prompt="Hello", id=i, detached=True, **options) for i in ids)
        wait_for(lambda: len(server.requests) >= len(ids))


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it never came")


def texts(events: list[Event], request_id: str) -> str:
    return "".join(e.text for e in events if isinstance(e, Tokens) and e.request_id == request_id)


def test_requests_are_followed_to_their_end(server: FakeServer, watch: WatchAll) -> None:
    submit_detached(server, "a", "b")
    server.release()
    events = watch(server.target, ["a", "b", "nobody"])
    for request_id in ("a", "b"):
        kinds = [type(event) for event in events if event.request_id == request_id]
        assert kinds == [Accepted, Queued, Tokens, Tokens, Finished]
    (unknown,) = (event for event in events if event.request_id == "nobody")
    assert isinstance(unknown, Failed)
    assert isinstance(unknown.error, NotFound)


def test_an_offset_skips_what_was_received(server: FakeServer, watch: WatchAll) -> None:
    submit_detached(server, "a")
    server.release()
    assert texts(watch(server.target, {"a": 2}), "a") == " three"


def test_a_restart_amid_the_answer_repeats_no_token(server: FakeServer, watch: WatchAll) -> None:
    submit_detached(server, "a", "b")
    server.answer_part(2)
    restarted: list[Event] = []

    def restart(event: Event) -> None:
        if isinstance(event, Tokens) and not restarted:
            restarted.append(event)
            server.stop()
            server.start()
            threading.Timer(0.2, server.release).start()

    events = watch(server.target, ["a", "b"], restart)
    assert texts(events, "a") == texts(events, "b") == "one two three"
    for kind in (Accepted, Queued, Finished):
        assert sorted(event.request_id for event in events if isinstance(event, kind)) == ["a", "b"]


def test_streams_that_break_again_and_again_are_made_again(server: FakeServer, watch: WatchAll) -> None:
    submit_detached(server, *(f"r{n}" for n in range(20)))
    left = [1, 2, 3, 0]

    def cut(_: Event) -> None:
        if left:
            server.answer_part(left.pop(0))
            server.break_streams()
            if not left:
                server.release()

    events = watch(server.target, [f"r{n}" for n in range(20)], cut)
    for n in range(20):
        assert texts(events, f"r{n}") == "one two three"
    assert sum(isinstance(event, Finished) for event in events) == 20


def test_patience_ends(server: FakeServer, watch: WatchAll) -> None:
    submit_detached(server, "a")
    with pytest.raises(ConnectionFailed, match="gave up watching"):
        watch(server.target, ["a"], lambda event: server.stop(), reattach_s=0.2)


def test_what_no_wait_can_mend_is_raised_at_once(watch: WatchAll) -> None:
    with FakeServer(token="a-secret-of-16-characters") as server, pytest.raises(Unauthenticated):
        watch(server.target, ["a"])


def test_more_requests_than_one_call_takes(server: FakeServer, watch: WatchAll) -> None:
    ids = [f"r{n}" for n in range(1500)]
    submit_detached(server, *ids, result_only=True)
    server.release()
    events = watch(server.target, ids)
    assert {event.request_id for event in events if isinstance(event, Finished)} == set(ids)


def test_each_request_is_found_at_the_replica_that_has_it(server: FakeServer, watch: WatchAll) -> None:
    with FakeServer(answer="other words") as other:
        submit_detached(server, "a")
        submit_detached(other, "b")
        server.release()
        other.release()
        targets = [server.target, other.target]
        events = watch(targets, ["a", "b", "nobody"])
        assert texts(events, "a") == "one two three"
        assert texts(events, "b") == "other words"
        (failed,) = (event for event in events if isinstance(event, Failed))
        assert failed.request_id == "nobody"
        with SchedulerClient(targets) as client:
            assert client.get_request("b").state is RequestState.FINISHED
            assert client.cancel("a") is False
            assert sorted(summary.request_id for summary in client.list_requests()) == ["a", "b"]
            with pytest.raises(NotFound):
                client.get_request("nobody")


def test_leaving_early_ends_the_calls(server: FakeServer) -> None:
    submit_detached(server, "a")
    with SchedulerClient(server.target) as client:
        events = client.watch(["a"])
        next(events)
        events.close()  # type: ignore[attr-defined]
        wait_for(lambda: client.stats().open_streams == 0)
        assert client.get_request("a").state is RequestState.WAITING


def test_one_string_is_not_a_list_of_ids(server: FakeServer) -> None:
    with SchedulerClient(server.target) as client, pytest.raises(ValueError, match="not one string"):
        next(client.watch("abc"))


def test_a_replica_that_sent_a_request_away_is_not_believed_before_the_others() -> None:
    ledger = WatchLedger({"a": 0}, 2)
    draining = Failed("a", Draining("elsewhere"), 0)
    assert list(ledger.read(0, [draining])) == []
    assert [type(e) for e in ledger.read(1, [Tokens("a", 0, 1, "x"), draining])] == [Tokens, Failed]
    assert ledger.done


def test_a_request_that_an_unreachable_replica_may_have_is_not_reported_unknown() -> None:
    ledger = WatchLedger({"a": 0}, 2)
    assert list(ledger.read(0, Unreachable(["a"], ConnectionFailed("gone")))) == []
    assert not ledger.done
    assert list(ledger.read(1, [Failed("a", NotFound("unknown"), 0)])) == []
    assert ledger.done
    with pytest.raises(ConnectionFailed):
        ledger.check_end()
