"""The sync client against a fake server."""

import threading
import time
from collections.abc import Iterator

import pytest

from rankserve.client import (
    Accepted,
    Cancelled,
    ConnectionFailed,
    DeadlineExceeded,
    Failed,
    Finished,
    InvalidRequest,
    NotFound,
    Queued,
    Request,
    RequestState,
    ResourceExhausted,
    SchedulerClient,
    Timeout,
    Tokens,
)
from rankserve.client.testing import FakeServer


@pytest.fixture
def client(server: FakeServer) -> Iterator[SchedulerClient]:
    with SchedulerClient(server.target) as client:
        yield client


def test_generate_and_complete(client: SchedulerClient) -> None:
    client.wait_ready()
    events = list(client.generate("Hello", id="a"))
    assert [type(event) for event in events] == [Accepted, Queued, Tokens, Tokens, Finished]
    assert client.complete("Hello", id="b").text == "one two three"


def test_errors_are_the_same_as_the_async_client_s(client: SchedulerClient, server: FakeServer) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.complete("")
    assert caught.value.violations[0].field == "request.prompt"
    with pytest.raises(NotFound):
        client.get_request("nobody")
    server.refuse(ResourceExhausted("full", retry_after_s=2.0))
    with pytest.raises(ResourceExhausted) as full:
        client.complete("Hello")
    assert full.value.retry_after_s == 2.0


def test_short_calls(client: SchedulerClient) -> None:
    client.complete("Hello", id="a")
    assert client.stats().finished_total == 1
    assert client.get_request("a").state is RequestState.FINISHED
    assert client.cancel("a") is False
    assert client.score(["ab"]).scores[0].score == -2.0
    assert [version.version for version in client.list_ranker_versions()] == [1, 2]
    assert client.activate_ranker_version("fake", 1).rescored == 0


def test_leaving_generate_early_cancels_the_request(client: SchedulerClient, server: FakeServer) -> None:
    server.hold()
    events = client.generate("Hello", id="a")
    next(events)
    events.close()  # type: ignore[attr-defined]
    for _ in range(500):
        if client.get_request("a").state is RequestState.FAILED:
            return
        time.sleep(0.01)
    pytest.fail("the request lives on")


def test_one_stream_carries_many_requests(client: SchedulerClient) -> None:
    with client.submit() as stream:
        for index in range(100):
            stream.send(Request(prompt="Hello", id=f"r{index}", result_only=True))
        stream.send(Request(prompt="", id="bad"))
        stream.done_sending()
        events = list(stream)
    assert sum(isinstance(event, Finished) for event in events) == 100
    assert [event.request_id for event in events if isinstance(event, Failed)] == ["bad"]


def test_sending_and_reading_in_two_threads(client: SchedulerClient, server: FakeServer) -> None:
    server.hold()
    with client.submit() as stream:

        def send() -> None:
            stream.send(Request(prompt="Hello", id="a"))
            stream.done_sending()

        sender = threading.Thread(target=send)
        sender.start()
        assert isinstance(next(stream), Accepted)
        sender.join()
        assert client.cancel("a")
        last = list(stream)[-1]
    assert isinstance(last, Failed)
    assert isinstance(last.error, Cancelled)


def test_a_broken_stream_raises_on_both_sides(client: SchedulerClient, server: FakeServer) -> None:
    server.hold()
    with client.submit() as stream:
        stream.send(Request(prompt="Hello", id="a"))
        next(stream)
        server.stop()
        with pytest.raises(ConnectionFailed):
            list(stream)
        with pytest.raises(ConnectionFailed):
            stream.send(Request(prompt="Hello", id="b"))


def test_timeouts_and_unreachable_servers(server: FakeServer) -> None:
    server.hold()
    timeout = Timeout(connect_s=0.05, generate_s=0.05)
    with SchedulerClient(server.target, timeout=timeout) as client:
        with pytest.raises(DeadlineExceeded):
            client.complete("Hello")
        server.stop()
    with SchedulerClient(server.target, timeout=timeout) as client:
        with pytest.raises(ConnectionFailed):
            client.stats()
        with pytest.raises(ConnectionFailed, match=r"within 0\.05 s"):
            client.wait_ready()
    with pytest.raises(RuntimeError, match="closed"):
        client.stats()
