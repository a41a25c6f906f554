"""What becomes of each parameter: it reaches the engine, it is ignored, or it is refused by name."""

from typing import Any

import pytest
from support.front_door import ENGINE, Door, error_of

from rankserve.server.engines.contract import Sampling, text_of


async def test_a_completion_becomes_a_request() -> None:
    door = Door()
    response = await door.complete(
        {
            "model": ENGINE,
            "prompt": ["one two three"],
            "max_tokens": 7,
            "temperature": 0.5,
            "top_p": 0.25,
            "stop": "end",
            "seed": -1,
            "metadata": {"team": "search"},
            "priority": -3,
            "deadline_ms": 5000,
            "tenant": "a",
            "detached": True,
            "request_id": "job:1",
        }
    )
    assert response.status_code == 200
    (spec,) = door.specs
    assert (spec.id, spec.prompt, spec.ranking_text, spec.model) == (
        "job:1",
        "one two three",
        "one two three",
        ENGINE,
    )
    assert spec.max_tokens == 7
    assert spec.sampling == Sampling(temperature=0.5, top_p=0.25, stop=("end",), seed=2**64 - 1)
    assert (spec.priority, spec.deadline_ms, spec.tenant, spec.detached) == (-3, 5000, "a", True)
    assert spec.metadata == {"team": "search"}


async def test_a_chat_becomes_a_request_ranked_on_its_last_user_turn() -> None:
    door = Door()
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "first", "name": "ada"},
        {"role": "assistant", "content": None},
        {"role": "tool", "content": "42", "tool_call_id": "t"},
        {"role": "user", "content": [{"type": "text", "text": "sec"}, {"type": "text", "text": "ond"}]},
    ]
    response = await door.chat({"messages": messages, "max_completion_tokens": 9, "stop": ["a", "b"]})
    assert response.status_code == 200
    (spec,) = door.specs
    assert text_of(spec.prompt) == "system: be brief\nuser: first\nassistant: \ntool: 42\nuser: sec\nond"
    assert spec.ranking_text == "[turn 2] sec\nond"
    assert spec.max_tokens == 9
    assert spec.sampling.stop == ("a", "b")


@pytest.mark.parametrize(
    ("body", "chat", "expected"),
    [
        ({}, False, 16),
        ({"max_tokens": None}, False, None),
        ({}, True, None),
        ({"max_tokens": 5}, True, 5),
        ({"max_tokens": 5, "max_completion_tokens": 5}, True, 5),
    ],
)
async def test_the_default_length_is_that_of_openai(
    body: dict[str, Any], chat: bool, expected: int | None
) -> None:
    door = Door()
    await (door.chat(body) if chat else door.complete(body))
    assert door.specs[0].max_tokens == expected


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \n"}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"prompt": "x" * 2000}, "prompt"),
        ({"model": 5}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 2**32}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 1e300}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"stop": 5}, "stop"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop": ["s"] * 17}, "stop"),
        ({"seed": 2**64}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": 5}, "stream_options"),
        (
            {"stream": True, "stream_options": {"continuous_usage_stats": True}},
            "stream_options.continuous_usage_stats",
        ),
        ({"user": 5}, "user"),
        ({"user": "u" * 129}, "user"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {"a": "b" * 300}}, "metadata"),
        ({"priority": 1001}, "priority"),
        ({"priority": 2**40}, "priority"),
        ({"tenant": "t" * 129}, "tenant"),
        ({"deadline_ms": -1}, "deadline_ms"),
        ({"deadline_ms": 2**62}, "deadline_ms"),
        ({"request_id": "no spaces"}, "request_id"),
    ],
)
async def test_a_bad_value_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    door = Door(max_prompt_bytes=1000)
    response = await door.complete(body)
    assert response.status_code == 400
    error = error_of(response)
    assert (error["param"], error["type"], error["code"]) == (
        param,
        "invalid_request_error",
        "invalid_request",
    )
    assert error["message"].startswith(f"{param}: ")
    assert not door.specs


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [5]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "system", "content": "only"}]}, "messages"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content",
        ),
        ({"messages": [{"role": "user", "content": "x" * 2000}]}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}] * 2000}, "messages"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [{}]}]},
            "messages[1].tool_calls",
        ),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_completion_tokens": 5, "max_tokens": 6}, "max_tokens"),
    ],
)
async def test_a_bad_chat_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    door = Door(max_prompt_bytes=1000)
    response = await door.chat(body)
    assert (response.status_code, error_of(response)["param"]) == (400, param)
    assert not door.specs


UNSUPPORTED = {
    "n": 2,
    "best_of": 3,
    "echo": True,
    "suffix": "the end",
    "logprobs": 0,
    "top_logprobs": 1,
    "logit_bias": {"50256": -100},
    "frequency_penalty": 0.5,
    "presence_penalty": -0.5,
    "tools": [{"type": "function"}],
    "tool_choice": "required",
    "functions": [{}],
    "response_format": {"type": "json_object"},
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy"},
    "reasoning_effort": "high",
    "min_tokens": 1,
    "ignore_eos": True,
    "top_k": 40,
    "guided_json": {},
    "structured_outputs": {},
    "continue_final_message": True,
}


@pytest.mark.parametrize("name", UNSUPPORTED)
async def test_what_would_change_the_answer_is_refused(name: str) -> None:
    door = Door()
    for post in (door.complete, door.chat):
        response = await post({name: UNSUPPORTED[name]})
        assert (response.status_code, error_of(response)["param"]) == (400, name)
    assert not door.specs


async def test_what_asks_for_nothing_is_not_refused() -> None:
    harmless = {
        "n": 1,
        "best_of": 1,
        "echo": False,
        "suffix": "",
        "logprobs": False,
        "logit_bias": {},
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "tools": [],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "top_k": -1,
        "repetition_penalty": 1.0,
    }
    door = Door()
    for body in (harmless, dict.fromkeys(UNSUPPORTED)):
        for post in (door.complete, door.chat):
            response = await post(body)
            assert response.status_code == 200, response.text
    assert len(door.specs) == 4


async def test_unknown_parameters_are_ignored() -> None:
    door = Door()
    response = await door.chat(
        {"store": True, "service_tier": "auto", "prompt_cache_key": "k", "parallel_tool_calls": True, "x": {}}
    )
    assert response.status_code == 200
