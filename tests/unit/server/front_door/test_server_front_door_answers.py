"""The shapes of answers, whole and streamed, and what becomes of requests whose client is gone."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from support.front_door import ACCEPT_TIME, ENGINE, Door, error_of, finished, scope_of, sse_data

from rankserve.server.errors import QueueFull, ServerDraining
from rankserve.server.events import Accepted, EventStream
from rankserve.server.requests import RequestSpec

CREATED = int(ACCEPT_TIME)
USAGE = {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}


async def test_a_whole_completion() -> None:
    response = await Door().complete({}, x_request_id="job-1")
    assert response.json() == {
        "id": "cmpl-job-1",
        "object": "text_completion",
        "created": CREATED,
        "model": ENGINE,
        "choices": [{"index": 0, "text": "so the answer ", "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
    }
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"] == "job-1"
    assert response.headers["x-rankserve-score"] == "1.5"
    assert response.headers["x-rankserve-ranker-version"] == "toy/1"
    assert response.headers["x-rankserve-queue-ms"] == "250"


async def test_a_whole_chat() -> None:
    response = await Door().chat({}, x_request_id="job-1")
    message = {"role": "assistant", "content": "so the answer ", "refusal": None}
    assert response.json() == {
        "id": "chatcmpl-job-1",
        "object": "chat.completion",
        "created": CREATED,
        "model": ENGINE,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
    }


def pieces(spec: RequestSpec, stream: EventStream) -> None:
    """An answer that reaches the client in two pieces."""

    async def go_on() -> None:
        await asyncio.sleep(0.01)
        stream.put_tokens(spec.id, 2, 1, "answer \u2028")
        stream.put(finished(spec.id, finish_reason="length"))

    stream.put(Accepted(spec.id, ACCEPT_TIME))
    stream.put_tokens(spec.id, 0, 2, "so the ")
    task = asyncio.create_task(go_on())
    tasks.add(task)


tasks: set[asyncio.Task[None]] = set()


async def test_a_streamed_completion() -> None:
    door = Door()
    door.script = pieces
    response = await door.complete({"stream": True, "request_id": "job-1"}, x_request_id="other")
    heading = {"id": "cmpl-job-1", "object": "text_completion", "created": CREATED, "model": ENGINE}

    def chunk(text: str, reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        return {**heading, "choices": [choice]}

    assert sse_data(response) == [
        chunk("so the ", None),
        chunk("answer \u2028", None),
        chunk("", "length"),
        "[DONE]",
    ]
    assert response.text.isascii(), "no client may take a character of the text for the end of a line"
    assert response.headers["x-request-id"] == "job-1"
    assert response.headers["cache-control"] == "no-cache"


async def test_a_streamed_chat_with_usage() -> None:
    door = Door()
    door.script = pieces
    response = await door.chat({"stream": True, "stream_options": {"include_usage": True}, "request_id": "1"})
    heading = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": CREATED, "model": ENGINE}

    def chunk(delta: dict[str, str], reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**heading, "choices": [choice], "usage": None}

    assert sse_data(response) == [
        chunk({"role": "assistant", "content": ""}, None),
        chunk({"content": "so the "}, None),
        chunk({"content": "answer \u2028"}, None),
        chunk({}, "length"),
        {**heading, "choices": [], "usage": USAGE},
        "[DONE]",
    ]


async def test_an_id_of_our_own_is_told_in_body_and_header() -> None:
    door = Door()
    first, second = await door.complete({}), await door.complete({})
    for response, spec in zip((first, second), door.specs, strict=True):
        assert response.json()["id"] == f"cmpl-{spec.id}"
        assert response.headers["x-request-id"] == spec.id
    assert door.specs[0].id != door.specs[1].id


async def test_the_same_request_has_the_same_fingerprint_by_any_name_of_the_model() -> None:
    door = Door(served_model_name="chat-model")
    for body in ({"model": "chat-model"}, {"model": ENGINE}, {}, {"max_tokens": 3}):
        await door.complete({"request_id": "job", **body})
    first, second, third, other = (spec.fingerprint for spec in door.specs)
    assert first == second == third != other


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_fails_before_any_text_has_a_status(streamed: bool) -> None:
    """Although the stream could have begun: by its status a client knows to try again, and when."""
    door = Door()
    door.fail_with(QueueFull("7 requests wait", 0.25))
    response = await door.chat({"stream": streamed})
    assert (response.status_code, error_of(response)["code"]) == (429, "queue_full")
    assert response.headers["retry-after-ms"] == "250"
    assert response.headers["retry-after"] == "1"
    assert response.headers["x-request-id"] == door.specs[0].id


async def test_what_fails_later_ends_the_stream_with_an_error() -> None:
    door = Door()
    door.fail_with(ServerDraining(), after_text="so ")
    *chunks, last = sse_data(await door.complete({"stream": True}))
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["so "]
    assert (last["error"]["type"], last["error"]["code"]) == ("server_error", "draining")


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_stream_that_the_server_gave_up_has_its_status(streamed: bool) -> None:
    """As those that a shutdown leaves to the journal."""
    door = Door()
    door.script = lambda spec, stream: stream.leave(spec.id, ServerDraining())
    response = await door.complete({"stream": streamed})
    assert (response.status_code, error_of(response)["code"]) == (503, "draining")
    assert response.headers["connection"] == "close", "a retry must be free to go elsewhere"


async def test_a_long_wait_is_told_in_comments() -> None:
    door = Door(keep_alive_s=0.01)

    def script(spec: RequestSpec, stream: EventStream) -> None:
        async def end() -> None:
            await asyncio.sleep(0.1)
            stream.put(finished(spec.id))

        stream.put(Accepted(spec.id, ACCEPT_TIME))
        tasks.add(asyncio.create_task(end()))

    door.script = script
    response = await door.complete({"stream": True})
    assert response.text.startswith(": waiting\n\n")
    assert sse_data(response)[-1] == "[DONE]"


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_is_gone_lets_its_request_go(streamed: bool, begun: bool) -> None:
    door = Door()

    def script(spec: RequestSpec, stream: EventStream) -> None:
        stream.put(Accepted(spec.id, ACCEPT_TIME))
        if begun and streamed:
            stream.put_tokens(spec.id, 0, 1, "so ")

    door.script = script
    gone = asyncio.Event()
    call = asyncio.create_task(
        door.application(
            scope_of("/v1/completions"), receiver({"prompt": "a", "stream": streamed}, gone), ignore
        )
    )
    while not door.specs:
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    assert not door.lost
    assert door.stats.open_streams == 1
    gone.set()
    await call
    assert len(door.lost) == 1
    assert door.stats.open_streams == 0


async def test_a_client_that_is_gone_while_it_is_written_to_lets_its_request_go() -> None:
    door = Door()
    gone = asyncio.Event()
    stuck = asyncio.Event()

    async def send(message: Any) -> None:
        stuck.set()
        await asyncio.Event().wait()

    call = asyncio.create_task(
        door.application(scope_of("/v1/completions"), receiver({"prompt": "a", "stream": True}, gone), send)
    )
    await stuck.wait()
    gone.set()
    await call
    assert len(door.lost) == 1


async def test_every_request_is_let_go_of_in_the_end() -> None:
    door = Door()
    for streamed in (False, True):
        await door.complete({"stream": streamed})
        await door.chat({"stream": streamed})
    door.refusal = QueueFull("7 requests wait", 1.0)
    await door.complete({})
    assert len(door.lost) == 5
    assert door.stats.open_streams == 0


def receiver(body: dict[str, Any], gone: asyncio.Event) -> Callable[[], Any]:
    messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    return receive


async def ignore(message: Any) -> None: ...
