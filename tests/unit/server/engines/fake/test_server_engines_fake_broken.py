"""What clients see of each fault, and what becomes of the request."""

import json
from typing import Any

import httpx2
import openai
import pytest
from support.fake_engines import MODEL, at_once, events, http_client, openai_client, streamed, text_of, until

from rankserve.server.engines.fake import FakeEngine, token_numbers

TEXT = "/v1/completions"
TEN: dict[str, Any] = {"model": MODEL, "prompt": "one two", "max_tokens": 10, "ignore_eos": True}
STREAM = {**TEN, "stream": True}
IMPATIENT = httpx2.Timeout(20, read=0.5)


def outcomes(engine: FakeEngine) -> list[tuple[str | None, str | None, int]]:
    return [(record.fault, record.outcome, record.tokens_sent) for record in engine.requests]


async def until_broken(client: httpx2.AsyncClient, error: type[Exception]) -> str:
    """The text streamed before the response breaks."""
    text = ""
    async with client.stream("POST", TEXT, json=STREAM, timeout=IMPATIENT) as response:
        assert response.status_code == 200
        try:
            async for event in events(response):
                text += text_of([event])
        except error:
            return text
    raise AssertionError("the response ended as if all were well")


@pytest.mark.parametrize("stream", [False, True])
async def test_error_answers_500(stream: bool) -> None:
    async with at_once() as engine, http_client(engine) as client:
        engine.faults.set("error", next_requests=1)
        response = await client.post(TEXT, json={**TEN, "stream": stream})
        assert response.status_code == 500
        assert response.json()["error"]["type"] == "InternalServerError"
        assert outcomes(engine) == [("error", "failed", 0)]
        assert (await client.post(TEXT, json=TEN)).status_code == 200


@pytest.mark.parametrize("status", [429, 503])
async def test_overloaded_says_when_to_come_again(status: int) -> None:
    async with at_once() as engine, http_client(engine) as client:
        engine.faults.set("overloaded", next_requests=1, status=status, retry_after_s=7)
        response = await client.post(TEXT, json=STREAM)
    assert (response.status_code, response.headers["retry-after"]) == (status, "7")
    assert response.json()["error"]["code"] == status


@pytest.mark.parametrize("stream", [False, True])
async def test_hang_never_answers_and_takes_no_place(stream: bool) -> None:
    async with at_once(max_num_seqs=1) as engine, http_client(engine) as client:
        engine.faults.set("hang", next_requests=1)
        with pytest.raises(httpx2.ReadTimeout):
            await client.post(TEXT, json={**TEN, "stream": stream}, timeout=IMPATIENT)
        await until(lambda: outcomes(engine) == [("hang", "aborted", 0)])
        assert (await client.post(TEXT, json=TEN)).status_code == 200


async def test_hang_may_begin_within_an_answer() -> None:
    async with at_once() as engine, http_client(engine) as client:
        engine.faults.set("hang", next_requests=1, after_tokens=4)
        text = await until_broken(client, httpx2.ReadTimeout)
        assert token_numbers(text) == [0, 1, 2, 3]
        await until(lambda: outcomes(engine) == [("hang", "aborted", 4)])


@pytest.mark.parametrize("after_tokens", [0, 1, 4, 100])
async def test_cut_closes_the_connection_after_so_many_tokens(after_tokens: int) -> None:
    sent = min(after_tokens, 9)
    async with at_once() as engine, http_client(engine) as client:
        engine.faults.set("cut", next_requests=1, after_tokens=after_tokens)
        text = await until_broken(client, httpx2.RemoteProtocolError)
        assert token_numbers(text) == list(range(sent))
        assert outcomes(engine) == [("cut", "failed", sent)]
        assert (engine.running, engine.waiting) == (0, 0)


async def test_cut_leaves_a_whole_answer_unsent() -> None:
    async with at_once() as engine:
        engine.faults.set("cut", next_requests=1)
        with pytest.raises(openai.APIConnectionError):
            await openai_client(engine).completions.create(model=MODEL, prompt="one")
        assert outcomes(engine) == [("cut", "failed", 0)]


async def test_slow_answers_all_the_same() -> None:
    async with at_once() as engine, http_client(engine) as client:
        whole = text_of(await streamed(client, TEXT, **TEN))
        engine.faults.set("slow", next_requests=1)
        assert text_of(await streamed(client, TEXT, **TEN)) == whole
        assert engine.requests[1].sequence.slowdown == 10
        assert outcomes(engine)[1] == ("slow", "finished", 10)


async def test_wrong_usage_lies_wherever_usage_is_told() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    async with at_once() as engine, http_client(engine) as client:
        engine.faults.set("wrong_usage", next_requests=2, factor=3)
        whole = (await client.post(TEXT, json=TEN)).json()
        *chunks, _ = await streamed(client, TEXT, **TEN, stream_options=options)
    assert whole["usage"]["completion_tokens"] == 31
    counts = [json.loads(chunk)["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == [*range(4, 32, 3), 31]
    assert token_numbers(text_of(chunks)) == list(range(10))


async def test_no_usage_tells_none_to_those_who_ask() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    async with at_once() as engine, http_client(engine) as client:
        engine.faults.set("no_usage", next_requests=2)
        whole = (await client.post(TEXT, json=TEN)).json()
        *chunks, done = await streamed(client, TEXT, **TEN, stream_options=options)
    assert whole["usage"] is None
    assert done == "[DONE]"
    assert all("usage" not in json.loads(chunk) and json.loads(chunk)["choices"] for chunk in chunks)


async def test_error_event_ends_the_stream_as_vllm_does() -> None:
    async with at_once() as engine, http_client(engine) as client:
        engine.faults.set("error_event", next_requests=2)
        *chunks, error, done = await streamed(client, TEXT, **TEN)
        assert token_numbers(text_of(chunks)) == [0, 1, 2]
        assert (json.loads(error)["error"]["code"], done) == (500, "[DONE]")
        assert (await client.post(TEXT, json=TEN)).status_code == 500
        assert outcomes(engine) == [("error_event", "failed", 3), ("error_event", "failed", 0)]


async def test_garbage_loses_the_text_of_one_chunk() -> None:
    async with at_once() as engine, http_client(engine) as client:
        engine.faults.set("garbage", next_requests=2)
        chunks = await streamed(client, TEXT, **TEN)
        broken = [chunk for chunk in chunks if not chunk.endswith(("}", "]"))]
        assert len(broken) == 1
        with pytest.raises(ValueError, match=r"."):
            json.loads(broken[0])
        chunks.remove(broken[0])
        assert token_numbers(text_of(chunks)) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
        assert chunks[-1] == "[DONE]"
        with pytest.raises(ValueError, match=r"."):
            (await client.post(TEXT, json=TEN)).json()
        assert [outcome for _, outcome, _ in outcomes(engine)] == ["failed", "failed"]


async def test_no_done_ends_the_stream_as_if_all_were_well() -> None:
    async with at_once() as engine, http_client(engine) as client:
        engine.faults.set("no_done", next_requests=2, after_tokens=5)
        chunks = await streamed(client, TEXT, **TEN)
        assert token_numbers(text_of(chunks)) == [0, 1, 2, 3, 4]
        assert {json.loads(chunk)["choices"][0]["finish_reason"] for chunk in chunks} == {None}
        whole = (await client.post(TEXT, json=TEN)).json()
        assert whole["choices"][0]["finish_reason"] is None
        assert outcomes(engine) == [("no_done", "failed", 5), ("no_done", "failed", 5)]


async def test_faults_are_changed_over_http_while_it_runs() -> None:
    async with at_once() as engine, http_client(engine) as client:
        body: dict[str, Any] = {"faults": {"error": {"next_requests": 1}, "cut": {"probability": 0.25}}}
        told = (await client.post("/faults", json=body)).json()
        assert told["faults"]["cut"]["probability"] == 0.25
        assert (await client.post(TEXT, json=TEN)).status_code == 500
        told = (await client.get("/faults")).json()
        assert (told["faults"]["error"]["next_requests"], told["injected"]) == (0, {"error": 1})
        await client.post("/faults", json={"healthy": False})
        assert (await client.get("/health")).status_code == 503
        told = (await client.delete("/faults")).json()
        assert (told["faults"], told["healthy"]) == ({}, True)


@pytest.mark.parametrize(
    "body",
    [
        {"faults": {"fire": {}}},
        {"faults": {"error": {"probability": 2}}},
        {"faults": {"error": {"probability": 0.6}, "cut": {"probability": 0.6}}},
        {"faults": {"error": {"chance": 0.5}}},
        {"fault": {}},
    ],
)
async def test_faults_that_cannot_be_are_refused(body: dict[str, Any]) -> None:
    async with at_once() as engine, http_client(engine) as client:
        assert (await client.post("/faults", json=body)).status_code == 400
        assert (await client.get("/faults")).json()["faults"] == {}


async def test_requests_that_are_refused_meet_no_fault() -> None:
    async with at_once() as engine, http_client(engine) as client:
        engine.faults.set("error", next_requests=1)
        assert (await client.post(TEXT, json={"model": "other", "prompt": "one"})).status_code == 404
        assert (await client.post(TEXT, json=TEN)).status_code == 500
