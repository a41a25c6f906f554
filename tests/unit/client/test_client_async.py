"""The async client against a fake server."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rankserve.client import (
    Accepted,
    AlreadyExists,
    AsyncSchedulerClient,
    Cancelled,
    ChatMessage,
    ConnectionFailed,
    DeadlineExceeded,
    Draining,
    Event,
    Failed,
    FailedPrecondition,
    Finished,
    FinishReason,
    InvalidRequest,
    NotFound,
    Queued,
    Request,
    RequestState,
    ResourceExhausted,
    Timeout,
    TlsConfig,
    Tokens,
    Unauthenticated,
)
from rankserve.client.testing import FakeServer

TOKEN = "a-very-secret-token"


@pytest_asyncio.fixture
async def client(server: FakeServer) -> AsyncIterator[AsyncSchedulerClient]:
    async with AsyncSchedulerClient(server.target) as client:
        yield client


async def test_generate_yields_the_events_in_order(client: AsyncSchedulerClient) -> None:
    events = [event async for event in client.generate("Hello", id="a", max_tokens=3)]
    assert [type(event) for event in events] == [Accepted, Queued, Tokens, Tokens, Finished]
    assert {event.request_id for event in events} == {"a"}
    tokens = [event for event in events if isinstance(event, Tokens)]
    assert "".join(chunk.text for chunk in tokens) == "one two three"
    assert [(chunk.offset, chunk.count) for chunk in tokens] == [(0, 2), (2, 1)]
    queued = events[1]
    assert isinstance(queued, Queued)
    assert (queued.score, queued.ranker_version, queued.estimated_wait_ms) == (-5.0, "fake/1", None)


async def test_complete_returns_the_whole_answer(client: AsyncSchedulerClient) -> None:
    completion = await client.complete("Hello", max_tokens=2, metadata={"trace": "7"})
    assert completion.text == "one two"
    assert completion.finish_reason is FinishReason.LENGTH
    assert completion.output_tokens == 2
    assert completion.metadata == {"trace": "7"}
    assert completion.timing.accept_time.tzinfo is not None


async def test_every_option_reaches_the_server(client: AsyncSchedulerClient, server: FakeServer) -> None:
    request = Request(
        messages=(ChatMessage("system", "Be brief."), ChatMessage("user", "Hello")),
        id="full",
        model="m",
        max_tokens=5,
        temperature=0.5,
        top_p=0.25,
        stop=("END",),
        seed=7,
        priority=-3,
        tenant="team",
        deadline_ms=60_000,
        detached=True,
        result_only=True,
        metadata={"k": "v"},
        replay_output_tokens=4,
        replay_input_tokens=9,
    )
    completion = await client.complete(request)
    assert server.requests == (request,)
    assert (completion.output_tokens, completion.input_tokens) == (4, 9)


async def test_each_request_gets_an_id_of_its_own(client: AsyncSchedulerClient, server: FakeServer) -> None:
    await client.complete("Hello")
    await client.complete([ChatMessage("user", "Hello")])
    assert len({request.id for request in server.requests}) == 2


async def test_resubmitting_the_same_body_is_the_same_request(
    client: AsyncSchedulerClient, server: FakeServer
) -> None:
    first = await client.complete("Hello", id="a")
    assert await client.complete("Hello", id="a") == first
    assert len(server.requests) == 1
    with pytest.raises(AlreadyExists) as caught:
        await client.complete("Goodbye", id="a")
    assert caught.value.reason == "ID_REUSED"


async def test_invalid_requests_say_which_field(client: AsyncSchedulerClient) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await client.complete("", max_tokens=0)
    assert [violation.field for violation in caught.value.violations] == [
        "request.prompt",
        "request.sampling.max_tokens",
    ]


@pytest.mark.parametrize("max_tokens", [-1, 2**40])
async def test_values_that_no_message_holds_are_invalid_requests(
    client: AsyncSchedulerClient, max_tokens: int
) -> None:
    with pytest.raises(InvalidRequest, match="cannot be sent"):
        await client.complete("Hello", max_tokens=max_tokens)


def test_a_request_needs_a_prompt_or_messages() -> None:
    with pytest.raises(InvalidRequest):
        Request()
    with pytest.raises(InvalidRequest):
        Request(prompt="Hello", messages=(ChatMessage("user", "Hello"),))


async def test_a_refused_request_raises_with_the_time_to_wait(
    client: AsyncSchedulerClient, server: FakeServer
) -> None:
    server.refuse(ResourceExhausted("the queue is full", reason="QUEUE_FULL", retry_after_s=1.5))
    with pytest.raises(ResourceExhausted, match="the queue is full") as caught:
        await client.complete("Hello")
    assert caught.value.retry_after_s == 1.5


async def test_draining_is_told_apart(client: AsyncSchedulerClient, server: FakeServer) -> None:
    server.hold()
    answer = asyncio.create_task(client.complete("Hello"))
    while not server.requests:
        await asyncio.sleep(0.01)
    server.fail_waiting(Draining("shutting down", reason="DRAINING"))
    with pytest.raises(Draining):
        await answer


async def test_cancel_ends_a_waiting_request(client: AsyncSchedulerClient, server: FakeServer) -> None:
    server.hold()
    answer = asyncio.create_task(client.complete("Hello", id="a"))
    while not server.requests:
        await asyncio.sleep(0.01)
    assert (await client.get_request("a")).state is RequestState.WAITING
    assert await client.cancel("a") is True
    assert await client.cancel("a") is False
    with pytest.raises(Cancelled):
        await answer
    status = await client.get_request("a")
    assert status.state is RequestState.FAILED
    assert isinstance(status.error, Cancelled)


async def test_leaving_generate_early_cancels_the_request(
    client: AsyncSchedulerClient, server: FakeServer
) -> None:
    server.hold()
    events = client.generate("Hello", id="a")
    async for _ in events:
        break
    await events.aclose()  # type: ignore[attr-defined]
    assert await _state(client, "a") is RequestState.FAILED


async def test_a_client_timeout_is_a_deadline_exceeded(server: FakeServer) -> None:
    server.hold()
    async with AsyncSchedulerClient(server.target, timeout=Timeout(generate_s=0.05)) as client:
        with pytest.raises(DeadlineExceeded):
            await client.complete("Hello")


async def test_get_request_knows_finished_and_unknown_ids(client: AsyncSchedulerClient) -> None:
    completion = await client.complete("Hello", id="a")
    status = await client.get_request("a")
    assert status.state is RequestState.FINISHED
    assert status.completion == completion
    with pytest.raises(NotFound):
        await client.get_request("b")


async def test_stats_and_ranker_calls(client: AsyncSchedulerClient) -> None:
    await client.complete("Hello")
    stats = await client.stats()
    assert (stats.policy, stats.finished_total, stats.output_tokens_total) == ("fcfs", 1, 3)
    scores = await client.score(["ab", "a"])
    assert [score.score for score in scores.scores] == [-2.0, -1.0]
    assert scores.scores[0].expected_tokens_p50 == 2.0
    assert scores.scores[0].expected_tokens_p90 is None
    good, damaged = await client.list_ranker_versions()
    assert (good.active, good.kendall_tau, damaged.problem) == (True, 0.5, "model.onnx is damaged")
    assert (await client.activate_ranker_version("fake", 1)).active == good
    with pytest.raises(FailedPrecondition, match="damaged"):
        await client.activate_ranker_version("fake", 2)
    with pytest.raises(NotFound):
        await client.activate_ranker_version("other")
    with pytest.raises(InvalidRequest):
        await client.activate_ranker_version("fake", -1)
    with pytest.raises(InvalidRequest):
        await client.score("one string")


async def test_one_stream_carries_many_requests(client: AsyncSchedulerClient) -> None:
    ids = [f"r{index}" for index in range(200)]
    async with client.submit() as stream:
        for request_id in ids:
            assert await stream.send(Request(prompt="Hello", id=request_id, result_only=True)) == request_id
        await stream.done_sending()
        events = [event async for event in stream]
    for request_id in ids:
        kinds = [type(event) for event in events if event.request_id == request_id]
        assert kinds == [Accepted, Queued, Finished]


async def test_a_refused_request_leaves_the_others_on_the_stream_alone(client: AsyncSchedulerClient) -> None:
    async with client.submit() as stream:
        await stream.send(Request(prompt="", id="bad"))
        await stream.send(Request(prompt="Hello", id="good"))
        await stream.done_sending()
        events = [event async for event in stream]
    (failed,) = (event for event in events if event.request_id == "bad")
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, InvalidRequest)
    assert isinstance(events[-1], Finished)
    assert events[-1].request_id == "good"


async def test_a_timed_out_read_does_not_harm_the_stream(
    client: AsyncSchedulerClient, server: FakeServer
) -> None:
    server.hold()
    async with client.submit() as stream:
        await stream.send(Request(prompt="Hello", id="a"))
        seen: list[Event] = [await anext(stream), await anext(stream)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.05)
        server.release()
        await stream.done_sending()
        seen += [event async for event in stream]
    assert [type(event) for event in seen] == [Accepted, Queued, Tokens, Tokens, Finished]


async def test_leaving_a_stream_cancels_what_is_open_unless_detached(
    client: AsyncSchedulerClient, server: FakeServer
) -> None:
    server.hold()
    async with client.submit() as stream:
        await stream.send(Request(prompt="Hello", id="a"))
        await stream.send(Request(prompt="Hello", id="kept", detached=True))
        while len(server.requests) < 2:
            await asyncio.sleep(0.01)
    assert await _state(client, "a") is RequestState.FAILED
    server.release()
    assert await _state(client, "kept") is RequestState.FINISHED


async def test_a_broken_stream_raises_on_both_sides(client: AsyncSchedulerClient, server: FakeServer) -> None:
    server.hold()
    async with client.submit() as stream:
        await stream.send(Request(prompt="Hello", id="a"))
        await anext(stream)
        await asyncio.to_thread(server.stop)
        with pytest.raises(ConnectionFailed):
            async for _ in stream:
                pass
        with pytest.raises(ConnectionFailed):
            await stream.send(Request(prompt="Hello", id="b"))


async def test_a_stream_takes_nothing_after_done_sending_and_outside_its_block(
    client: AsyncSchedulerClient,
) -> None:
    stream = client.submit()
    with pytest.raises(RuntimeError, match="async with"):
        await stream.send(Request(prompt="Hello"))
    async with stream:
        await stream.send(Request(prompt="Hello"))
        await stream.done_sending()
        with pytest.raises((RuntimeError, ConnectionFailed)):
            await stream.send(Request(prompt="Hello"))
    with pytest.raises(RuntimeError, match="async with"):
        await anext(stream)


async def test_an_unreachable_server_is_a_failed_connection(server: FakeServer) -> None:
    await asyncio.to_thread(server.stop)
    async with AsyncSchedulerClient(server.target, timeout=Timeout(connect_s=0.05)) as client:
        with pytest.raises(ConnectionFailed, match="cannot reach a RankServe server at 127"):
            await client.stats()
        with pytest.raises(ConnectionFailed, match=r"within 0\.05 s"):
            await client.wait_ready()


async def test_a_closed_client_says_so(server: FakeServer) -> None:
    async with AsyncSchedulerClient(server.target) as client:
        await client.wait_ready()
    with pytest.raises(RuntimeError, match="closed"):
        await client.stats()


async def test_the_token_is_sent_and_never_shown() -> None:
    with FakeServer(token=TOKEN) as server:
        async with AsyncSchedulerClient(server.target, token=TOKEN) as client:
            assert (await client.complete("Hello")).text
            assert TOKEN not in repr(client)
        async with AsyncSchedulerClient(server.target, token="wrong") as client:
            with pytest.raises(Unauthenticated) as caught:
                await client.stats()
            assert "wrong" not in str(caught.value)


def test_a_private_key_is_never_shown() -> None:
    assert "hidden" not in repr(TlsConfig(b"roots", b"chain", b"hidden"))
    with pytest.raises(ValueError, match="both"):
        TlsConfig(certificate_chain=b"chain")


async def _state(client: AsyncSchedulerClient, request_id: str) -> RequestState:
    """The state once the server has noticed that the stream is lost."""
    for _ in range(500):
        status = await client.get_request(request_id)
        if status.state not in (RequestState.ACCEPTED, RequestState.WAITING):
            return status.state
        await asyncio.sleep(0.01)
    return status.state
