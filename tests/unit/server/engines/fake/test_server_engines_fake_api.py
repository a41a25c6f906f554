"""The API, through the `openai` package and raw HTTP."""

import asyncio
import json
from typing import Any

import httpx2
import openai
import pytest
from support.fake_engines import (
    MODEL,
    Steps,
    at_once,
    by_hand,
    http_client,
    openai_client,
    streamed,
    text_of,
    until,
)

from rankserve.server.engines.fake import FakeEngine, FakeEngineSettings, FakeEngineThread, token_numbers

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
USER = {"role": "user", "content": "tell me"}


async def test_a_completion_counts_its_tokens() -> None:
    async with at_once() as engine:
        answer = await openai_client(engine).completions.create(
            model=MODEL, prompt="one two three", max_tokens=40, extra_body={"ignore_eos": True}
        )
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        3,
        40,
        43,
    )
    assert answer.choices[0].finish_reason == "length"
    assert token_numbers(answer.choices[0].text) == list(range(40))


async def test_a_completion_has_16_tokens_unless_it_asks_for_more() -> None:
    async with at_once(mean_output_tokens=50, sigma_output_tokens=0) as engine:
        client = openai_client(engine)
        short = await client.completions.create(model=MODEL, prompt="one")
        whole = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "a"}])
    assert short.usage is not None
    assert short.usage.completion_tokens == 16
    assert whole.usage is not None
    assert (whole.usage.completion_tokens, whole.choices[0].finish_reason) == (51, "stop")


@pytest.mark.parametrize("tokens_per_chunk", [1, 7])
async def test_a_stream_is_the_same_answer_in_chunks(tokens_per_chunk: int) -> None:
    async with at_once(tokens_per_chunk=tokens_per_chunk) as engine:
        client = openai_client(engine)
        whole = await client.completions.create(model=MODEL, prompt="one two", max_tokens=60)
        stream = await client.completions.create(model=MODEL, prompt="one two", max_tokens=60, stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons[-1] == whole.choices[0].finish_reason
    assert set(reasons[:-1]) == {None}
    assert whole.usage is not None
    # The first token does not wait for others.
    assert len(chunks) == 1 + -(-(whole.usage.completion_tokens - 1) // tokens_per_chunk)


async def test_a_streamed_chat_begins_with_its_role_and_ends_with_its_usage() -> None:
    async with at_once() as engine:
        chats: Any = openai_client(engine).chat.completions
        stream = await chats.create(
            model=MODEL,
            messages=[USER],
            max_completion_tokens=25,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        first, *chunks, last = [chunk async for chunk in stream]
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert token_numbers("".join(chunk.choices[0].delta.content or "" for chunk in chunks)) == list(range(25))
    assert chunks[-1].choices[0].finish_reason == "length"
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (4, 25)


async def test_usage_may_be_asked_for_in_every_chunk() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    async with at_once(tokens_per_chunk=4) as engine, http_client(engine) as client:
        *chunks, done = await streamed(
            client, TEXT, prompt="one", max_tokens=9, ignore_eos=True, stream_options=options
        )
    assert done == "[DONE]"
    counts = [json.loads(chunk)["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == [1, 5, 9, 9]


async def test_a_stream_tells_no_usage_unless_asked() -> None:
    async with at_once() as engine, http_client(engine) as client:
        *chunks, done = await streamed(client, TEXT, prompt="one", max_tokens=9)
    assert done == "[DONE]"
    assert all("usage" not in json.loads(chunk) for chunk in chunks)


async def test_a_text_goes_on_where_it_was_cut_off() -> None:
    async with at_once(mean_output_tokens=40, sigma_output_tokens=0) as engine, http_client(engine) as client:
        whole = text_of(await streamed(client, TEXT, prompt="one two", max_tokens=100))
        beginning = text_of(await streamed(client, TEXT, prompt="one two", max_tokens=15))
        rest = text_of(await streamed(client, TEXT, prompt="one two" + beginning, max_tokens=85))
    assert beginning + rest == whole
    assert token_numbers(beginning + rest) == list(range(40))


async def test_a_chat_goes_on_where_it_was_cut_off() -> None:
    async with at_once(mean_output_tokens=40, sigma_output_tokens=0) as engine:
        client = openai_client(engine)

        async def answer(messages: list[Any], **body: Any) -> Any:
            return await client.chat.completions.create(model=MODEL, messages=messages, **body)

        whole = await answer([USER])
        beginning = await answer([USER], max_tokens=15)
        partial = {"role": "assistant", "content": beginning.choices[0].message.content}
        rest = await answer(
            [USER, partial], extra_body={"continue_final_message": True, "add_generation_prompt": False}
        )
        another = await answer([USER, partial, {"role": "user", "content": "go on"}])
    text = beginning.choices[0].message.content + rest.choices[0].message.content
    assert text == whole.choices[0].message.content
    assert beginning.usage.completion_tokens + rest.usage.completion_tokens == whole.usage.completion_tokens
    assert token_numbers(another.choices[0].message.content)[0] == 0


async def test_a_stop_sequence_is_named() -> None:
    async with at_once() as engine, http_client(engine) as client:
        body = {"model": MODEL, "prompt": "one", "max_tokens": 50, "ignore_eos": True, "stop": ".7"}
        choice = (await client.post(TEXT, json=body)).json()["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", ".7")
    assert choice["text"].split()[-2].endswith(".6")


async def test_it_tells_its_models_and_answers_as_the_first() -> None:
    async with at_once(models=("first", "second"), max_model_len=100, kv_tokens=100) as engine:
        client = openai_client(engine)
        models = [model async for model in client.models.list()]
        answer = await client.completions.create(model="second", prompt="one")
    assert [model.id for model in models] == ["first", "second"]
    assert {model.model_dump()["max_model_len"] for model in models} == {100}
    assert answer.model == "first"


async def test_tokens_are_counted_as_in_usage() -> None:
    async with at_once() as engine, http_client(engine) as client:
        text = (await client.post("/tokenize", json={"model": MODEL, "prompt": "one two one"})).json()
        chat = (await client.post("/tokenize", json={"messages": [USER]})).json()
        answer = (await client.post(CHAT, json={"messages": [USER], "max_tokens": 1})).json()
    assert (text["count"], text["max_model_len"]) == (3, 4096)
    assert text["tokens"][0] == text["tokens"][2] != text["tokens"][1]
    assert chat["count"] == answer["usage"]["prompt_tokens"]


REFUSED: list[tuple[str, dict[str, Any], int, str | None, str]] = [
    (TEXT, {"model": "other", "prompt": "one"}, 404, "model", "NotFoundError"),
    ("/tokenize", {"model": "other", "prompt": "one"}, 404, "model", "NotFoundError"),
    (TEXT, {"prompt": "one " * 11, "max_tokens": 1}, 400, "input_tokens", "BadRequestError"),
    (TEXT, {"prompt": "one " * 10, "max_tokens": 1}, 400, "max_tokens", "BadRequestError"),
    (TEXT, {"prompt": "one", "max_tokens": 11}, 400, "max_tokens", "BadRequestError"),
    (TEXT, {"prompt": "one", "max_tokens": 0}, 400, "max_tokens", "BadRequestError"),
    (TEXT, {"prompt": "one", "max_tokens": 3, "min_tokens": 4}, 400, "min_tokens", "BadRequestError"),
    (TEXT, {"prompt": "one", "temperature": -1}, 400, "temperature", "BadRequestError"),
    (
        TEXT,
        {"prompt": "one", "stream_options": {"include_usage": True}},
        400,
        "stream_options",
        "BadRequestError",
    ),
    (TEXT, {"prompt": "one", "n": 2}, 400, "n", "BadRequestError"),
    (TEXT, {"prompt": "one", "logprobs": 0}, 400, "logprobs", "BadRequestError"),
    (TEXT, {"prompt": ""}, 400, "prompt", "BadRequestError"),
    (TEXT, {}, 400, "body.prompt", "Bad Request"),
    (TEXT, {"prompt": "one", "max_tokens": "many"}, 400, "body.max_tokens", "Bad Request"),
    (TEXT, {"prompt": "one", "priority": 1 << 63}, 400, "body.priority", "Bad Request"),
    (CHAT, {"messages": "hello"}, 400, "body.messages", "Bad Request"),
    (
        CHAT,
        {"messages": [USER], "continue_final_message": True, "add_generation_prompt": True},
        400,
        None,
        "BadRequestError",
    ),
    ("/v1/nothing", {}, 404, None, "Not Found"),
    ("/v1/models", {}, 405, None, "Method Not Allowed"),
]


@pytest.mark.parametrize(("path", "body", "status", "param", "kind"), REFUSED)
async def test_errors_are_told_as_vllm_does(
    path: str, body: dict[str, Any], status: int, param: str | None, kind: str
) -> None:
    async with at_once(max_model_len=10, kv_tokens=10) as engine, http_client(engine) as client:
        response = await client.post(path, json=body)
        assert len(engine.requests) == 0
    assert response.status_code == status
    error = response.json()["error"]
    assert (error["code"], error["param"], error["type"]) == (status, param, kind)
    assert error["message"]


@pytest.mark.parametrize("content", [b"{", b"[]", b'"text"'])
async def test_a_body_that_is_no_json_object_is_refused(content: bytes) -> None:
    async with at_once() as engine, http_client(engine) as client:
        for content_type in ("application/json", "text/plain"):
            response = await client.post(TEXT, content=content, headers={"content-type": content_type})
            assert (response.status_code, response.json()["error"]["type"]) == (400, "Bad Request")


async def test_an_answer_is_as_long_as_the_model_allows() -> None:
    async with at_once(max_model_len=10, kv_tokens=10) as engine, http_client(engine) as client:
        body = {"prompt": "one two three four", "max_tokens": 10, "ignore_eos": True}
        answer = (await client.post(TEXT, json=body)).json()
    assert answer["usage"]["completion_tokens"] == 6
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_the_api_key_is_asked_for_below_v1() -> None:
    async with at_once(api_key="secret") as engine, http_client(engine) as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/v1/models")).status_code == 401
        with pytest.raises(openai.AuthenticationError):
            await openai_client(engine, "wrong").models.list()
        assert (await openai_client(engine, "secret").models.list()).data


async def test_a_client_that_goes_frees_its_place() -> None:
    steps = Steps()
    async with by_hand(steps, max_num_seqs=1) as engine, http_client(engine) as client:
        body = {"prompt": "one", "max_tokens": 100, "ignore_eos": True, "stream": True}
        async with client.stream("POST", TEXT, json=body):
            await until(lambda: engine.running == 1)
        await until(lambda: engine.running == 0)
        steps.allow(1)
        whole = asyncio.ensure_future(client.post(TEXT, json={"prompt": "two"}))
        await until(lambda: engine.running == 1)
        whole.cancel()
        await until(lambda: engine.running == 0)
        assert [record.outcome for record in engine.requests] == ["aborted", "aborted"]
        steps.allow(100)
        assert (await client.post(TEXT, json={"prompt": "three"})).status_code == 200


@pytest.mark.parametrize(("scheduling", "order"), [("priority", [0, 4, 3, 2, 1]), ("fcfs", [0, 1, 2, 3, 4])])
async def test_priority_orders_who_waits_where_it_is_asked_for(scheduling: str, order: list[int]) -> None:
    steps = Steps()
    async with by_hand(steps, max_num_seqs=1, scheduling=scheduling) as engine, http_client(engine) as client:
        tasks = []
        for number, priority in enumerate((0, 3, 2, 1, 0)):
            body = {"prompt": f"prompt {number}", "max_tokens": 2, "priority": priority}
            tasks.append(asyncio.ensure_future(client.post(TEXT, json=body)))
            await until(lambda: (engine.running, engine.waiting) == (1, len(tasks) - 1))
        steps.allow(1000)
        await asyncio.gather(*tasks)
    records = sorted(engine.requests, key=lambda record: record.first_token_order or 0)
    assert [int(record.body["prompt"].split()[1]) for record in records] == order


async def test_the_header_of_vllms_routers_goes_before_the_field() -> None:
    async with at_once() as engine, http_client(engine) as client:
        body = {"prompt": "one", "priority": 3}
        for header in ("7", "high"):
            await client.post(TEXT, json=body, headers={"x-vllm-priority": header, "x-request-id": "mine"})
        assert [record.priority for record in engine.requests] == [7, 3]
        assert [record.id for record in engine.requests] == ["cmpl-mine", "cmpl-mine"]


async def test_metrics_are_in_vllms_words() -> None:
    steps = Steps()
    engine = by_hand(steps, max_num_seqs=1, kv_tokens=100, max_model_len=100)
    body = {"prompt": "one " * 25, "max_tokens": 10, "ignore_eos": True, "stream": True}
    async with (
        engine,
        http_client(engine) as client,
        client.stream("POST", TEXT, json=body),
        client.stream("POST", TEXT, json=body),
    ):
        await until(lambda: (engine.running, engine.waiting) == (1, 1))
        lines = (await client.get("/metrics")).text.splitlines()
    labels = '{engine="0",model_name="fake-model"}'
    assert f"vllm:num_requests_running{labels} 1.0" in lines
    assert f"vllm:num_requests_waiting{labels} 1.0" in lines
    assert f"vllm:kv_cache_usage_perc{labels} 0.25" in lines
    assert f"vllm:num_preemptions_total{labels} 0.0" in lines


async def test_it_remembers_the_latest_requests() -> None:
    async with at_once(max_records=2) as engine, http_client(engine) as client:
        for number in range(3):
            await client.post(TEXT, json={"prompt": f"prompt {number}", "max_tokens": 5, "ignore_eos": True})
        told = (await client.get("/requests")).json()
    assert told["total"] == 3
    assert [record["body"]["prompt"] for record in told["requests"]] == ["prompt 1", "prompt 2"]
    last = told["requests"][-1]
    assert (last["state"], last["tokens_sent"], last["start_order"], last["fault"]) == (
        "finished",
        5,
        2,
        None,
    )


async def test_health_is_as_the_test_says() -> None:
    async with at_once() as engine, http_client(engine) as client:
        assert (await client.get("/health")).status_code == 200
        engine.healthy = False
        assert (await client.get("/health")).status_code == 503


async def test_closed_it_cuts_what_is_not_answered() -> None:
    steps = Steps()
    engine = by_hand(steps)
    await engine.start()
    async with http_client(engine) as client:
        async with client.stream("POST", TEXT, json={"prompt": "one", "stream": True}) as response:
            await until(lambda: engine.running == 1)
            await engine.aclose()
            with pytest.raises(httpx2.TransportError):
                await response.aread()
        with pytest.raises(httpx2.ConnectError):
            await client.get("/health")
    assert [record.outcome for record in engine.requests] == ["failed"]
    async with FakeEngine(FakeEngineSettings(port=engine.port)) as next_engine:
        assert next_engine.url == engine.url


def test_a_thread_serves_tests_without_an_event_loop() -> None:
    with FakeEngineThread(FakeEngineSettings(ttft_s=0, itl_s=0)) as engine:
        client = openai.OpenAI(base_url=engine.base_url, api_key="none", max_retries=0)
        answer = client.completions.create(model=MODEL, prompt="one")
        engine.call(lambda engine: engine.faults.set("error", next_requests=1))
        with pytest.raises(openai.InternalServerError):
            client.completions.create(model=MODEL, prompt="one")
        assert [record.outcome for record in engine.requests] == ["finished", "failed"]
        assert engine.requests[0].id == answer.id
        client.close()


def test_a_thread_that_cannot_listen_says_so() -> None:
    with FakeEngineThread() as engine:
        port = engine.call(lambda engine: engine.port)
        with pytest.raises(OSError, match="in use"):
            FakeEngineThread(FakeEngineSettings(port=port)).__enter__()
