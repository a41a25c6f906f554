from typing import Any

import pytest

from rankserve.server.errors import InvalidRequest
from rankserve.server.gateway.prompts import find_reader
from rankserve.server.rpc.validation import to_spec
from rankserve.v1 import scheduler_pb2 as pb


def texts(path: str, body: dict[str, Any]) -> list[str]:
    reader = find_reader("POST", path)
    assert reader is not None
    return reader(body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"prompt": "one two"}, ["one two"]),
        ({"prompt": ["one", "two"]}, ["one", "two"]),
        ({"prompt": [1, 2, 3]}, []),
        ({"prompt": [[1, 2], [3]]}, []),
        ({"prompt": " "}, []),
        ({"prompt": None}, []),
        ({}, []),
        ({"prompt": ["x"] * 1000}, ["x"] * 16),
    ],
)
def test_completions(body: dict[str, Any], expected: list[str]) -> None:
    assert texts("/v1/completions", body) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("one", ["one"]),
        ([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], ["one\ntwo"]),
        ([{"type": "image_url", "image_url": {}}, {"type": "text", "text": "one"}], ["one"]),
        ([{"type": "text", "text": 1}, "x", {}], []),
        (None, []),
        (7, []),
    ],
)
def test_contents_of_a_turn(content: object, expected: list[str]) -> None:
    assert texts("/v1/chat/completions", {"messages": [{"role": "user", "content": content}]}) == expected


@pytest.mark.parametrize("messages", [None, "hello", [], [1], [{"role": "system", "content": "x"}]])
def test_a_chat_without_a_user_turn_has_no_text(messages: object) -> None:
    assert texts("/v1/chat/completions", {"messages": messages}) == []


@pytest.mark.parametrize("turns", [["a"], ["a", "b"], ["a", " ", "b", "c"]])
def test_a_chat_is_ranked_as_the_grpc_api_does(turns: list[str]) -> None:
    messages = [{"role": "system", "content": "be short"}]
    for turn in turns:
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": "yes"}]
    message = pb.InferenceRequest(id="r")
    message.chat.SetInParent()
    for turn_message in messages:
        message.chat.messages.add(**turn_message)
    spec = to_spec(message, max_prompt_bytes=1000, replay=False)
    assert texts("/v1/chat/completions", {"messages": messages}) == [spec.ranking_text]


def test_a_chat_without_user_turns_is_still_refused_by_the_grpc_api() -> None:
    message = pb.InferenceRequest(id="r")
    message.chat.messages.add(role="system", content="x")
    with pytest.raises(InvalidRequest, match="at least one user message"):
        to_spec(message, max_prompt_bytes=1000, replay=False)


def test_responses() -> None:
    assert texts("/v1/responses", {"input": "one"}) == ["one"]
    turns = [{"role": "user", "content": [{"type": "input_text", "text": "one"}]}]
    assert texts("/v1/responses", {"input": turns}) == ["one"]
    assert texts("/v1/responses", {"input": " "}) == []


def test_messages() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": "not this"}
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {"role": "user", "content": [result]},
    ]
    assert texts("/v1/messages", {"system": "be short", "messages": turns}) == ["one\ntwo"]


def test_only_posts_to_these_paths_are_ordered() -> None:
    assert find_reader("GET", "/v1/completions") is None
    assert find_reader("POST", "/v1/embeddings") is None
    assert find_reader("POST", "/v1/completions/") is None
    assert find_reader("POST", "/v1/messages/count_tokens") is None
    assert find_reader("POST", "/engine/v1/chat/completions") is not None
