"""Whatever comes from outside is taken whole or refused by name: messages, bodies, streams of engines."""

import asyncio
import json
from contextlib import suppress
from itertools import pairwise
from random import Random
from typing import Any

import httpx2
import hypothesis.strategies as st
import orjson
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from pydantic_core import from_json
from support.message_fuzz import fuzzed
from support.messages import inference

from rankserve.server.engines.contract import ChatMessage
from rankserve.server.engines.openai.client import EndpointClient
from rankserve.server.engines.openai.errors import Busy, EndpointTrouble
from rankserve.server.engines.openai.wire import error_text, read_chunk
from rankserve.server.errors import InvalidRequest
from rankserve.server.front_door.bodies import ChatBody, CompletionBody, parse_body
from rankserve.server.front_door.translation import body_to_spec
from rankserve.server.gateway.errors import RefusalError
from rankserve.server.gateway.json_bodies import json_object, with_fields
from rankserve.server.gateway.prompts import find_reader
from rankserve.server.requests import RequestSpec
from rankserve.server.rpc.validation import MAX_PRIORITY, from_body, to_spec
from rankserve.v1.scheduler_pb2 import InferenceRequest

MOST_BYTES = 1000
TEXT = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool", "robot"])
PARTS = st.lists(
    st.fixed_dictionaries({}, optional={"type": st.sampled_from(["text", "image_url"]), "text": TEXT | JSON}),
    max_size=3,
)
TURNS = st.lists(
    st.fixed_dictionaries({"role": ROLES}, optional={"content": TEXT | PARTS | JSON, "tool_calls": JSON}),
    max_size=4,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "model": TEXT,
    "max_tokens": st.integers(-1, 1 << 33),
    "max_completion_tokens": st.integers(-1, 1 << 33),
    "temperature": st.floats(),
    "top_p": st.floats(-1, 2),
    "stop": TEXT | st.lists(TEXT, max_size=20),
    "seed": st.integers(-(1 << 64), 1 << 65),
    "stream": st.booleans(),
    "stream_options": st.dictionaries(st.just("include_usage"), st.booleans()),
    "user": TEXT,
    "metadata": st.dictionaries(TEXT, TEXT, max_size=20),
    "request_id": TEXT,
    "priority": st.integers(-2000, 2000) | st.integers(),
    "tenant": TEXT,
    "deadline_ms": st.integers(-1, 1 << 64),
    "detached": st.booleans(),
    "prompt": TEXT | st.lists(TEXT, max_size=2),
    "messages": TURNS,
    "input": TEXT | TURNS,
}
GOOD = {"prompt": "so", "messages": [{"role": "user", "content": "so"}], "input": "so"}
BODIES = (
    st.lists(st.sampled_from(sorted(FIELDS)), max_size=4, unique=True)
    .flatmap(lambda names: st.fixed_dictionaries({name: FIELDS[name] | JSON for name in names}))
    .map(lambda changes: {**GOOD, **changes})
)


def check(spec: RequestSpec) -> None:
    """Bounds hold, and a journal gives it back as it was."""
    assert 1 <= len(spec.id) <= 128
    assert spec.size_bytes <= MOST_BYTES
    assert abs(spec.priority) <= MAX_PRIORITY
    assert spec.max_tokens is None or spec.max_tokens >= 1
    assert spec.sampling.temperature is None or 0 <= spec.sampling.temperature <= 10
    assert spec.sampling.top_p is None or 0 < spec.sampling.top_p <= 1
    assert spec.ranking_text.strip()
    prompt = spec.prompt
    assert prompt.strip() if isinstance(prompt, str) else all(isinstance(m, ChatMessage) for m in prompt)
    again = from_body(spec.body)
    assert (again.fingerprint, again.prompt, again.sampling) == (spec.fingerprint, prompt, spec.sampling)
    assert (again.deadline_ms, again.metadata) == (spec.deadline_ms, spec.metadata)


@settings(max_examples=300)
@given(seed=st.integers(0, 2**64 - 1))
def test_bytes_are_a_request_or_refused(seed: int) -> None:
    good = inference("r1", metadata={"a": "b"}).SerializeToString()
    data = fuzzed(Random(seed), InferenceRequest.DESCRIPTOR, good)
    try:
        message = InferenceRequest.FromString(data)
    except DecodeError:
        return
    with suppress(InvalidRequest):
        check(to_spec(message, max_prompt_bytes=MOST_BYTES, replay=True, keep_body=True))


@settings(max_examples=300)
@given(kind=st.sampled_from([ChatBody, CompletionBody]), fields=BODIES, request_id=st.sampled_from(["r", ""]))
@example(CompletionBody, {"prompt": "\ud800"}, "r")
@example(CompletionBody, {"prompt": "so", "temperature": 1e300}, "r")
def test_a_body_is_a_request_or_refused(kind: Any, fields: dict[str, Any], request_id: str) -> None:
    try:
        fields = from_json(json.dumps(fields), allow_inf_nan=False)
    except ValueError:
        return  # No JSON that the front door reads.
    with suppress(InvalidRequest):
        body = parse_body(kind, fields)
        check(
            body_to_spec(
                body,
                request_id=body.request_id or request_id,
                model="",
                max_prompt_bytes=MOST_BYTES,
                keep_body=True,
            )
        )


@settings(max_examples=300)
@given(
    body=st.dictionaries(TEXT, JSON, max_size=4) | BODIES,
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-be"]),
    ascii_only=st.booleans(),
    space=st.sampled_from(["", " ", "\n\t"]),
    priority=st.none() | st.integers(-9, 9),
)
def test_a_body_is_changed_in_one_field(
    body: dict[str, Any], encoding: str, ascii_only: bool, space: str, priority: int | None
) -> None:
    text = space + json.dumps(body, ensure_ascii=ascii_only, indent=space or None)
    raw = text.encode(encoding, "surrogatepass")
    try:
        found = json_object(raw)
        if found is None:
            return
        changed = json.loads(with_fields(raw, found, {"priority": priority}))
    except RefusalError:
        return
    if priority is not None:
        assert changed.pop("priority") == priority
    found.pop("priority", None)
    # NaN is not itself.
    assert json.dumps(changed, sort_keys=True) == json.dumps(found, sort_keys=True)


@given(raw=st.binary(max_size=60))
def test_bytes_are_an_object_nothing_or_refused(raw: bytes) -> None:
    with suppress(RefusalError):
        assert isinstance(json_object(raw), dict | None)


@pytest.mark.parametrize("path", ["completions", "chat/completions", "responses", "messages"])
@given(body=BODIES | st.dictionaries(st.sampled_from(["prompt", "messages", "input"]), JSON))
def test_what_is_ranked_is_text(path: str, body: dict[str, Any]) -> None:
    reader = find_reader("POST", f"/v1/{path}")
    assert reader is not None
    assert all(text.strip() for text in reader(body))


EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "error": JSON,
        "choices": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "text": TEXT | JSON,
                    "delta": st.dictionaries(st.just("content"), TEXT) | JSON,
                    "finish_reason": st.sampled_from(["stop", "length", "abort", None]) | JSON,
                },
            )
            | JSON,
            max_size=2,
        ),
        "usage": st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens"]), JSON) | JSON,
    },
)
LINES = (
    st.builds(lambda event: b"data: " + json.dumps(event).encode(), EVENTS)
    | st.sampled_from([b"", b"data:", b"data: [DONE]", b": so", b"event: a", b"id: \0", b"retry: x", b"\xff"])
    | st.binary(max_size=30)
)


@settings(max_examples=300)
@given(
    lines=st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\n\n", b"\r\n\r\n", b"\r"])), max_size=12),
    cuts=st.lists(st.integers(0, 300), max_size=6),
    status=st.sampled_from([200, 200, 200, 400, 404, 429, 500, 503]),
    headers=st.dictionaries(
        st.sampled_from(["content-type", "retry-after"]),
        st.sampled_from(
            ["text/event-stream", "x/y; charset=q", "inf", "nan", "-5", "Wed, 21 Oct 2015 07:28:00 GMT"]
        ),
    ),
)
def test_a_stream_gives_chunks_or_trouble(
    lines: list[tuple[bytes, bytes]], cuts: list[int], status: int, headers: dict[str, str]
) -> None:
    data = b"".join(line + end for line, end in lines)
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = [data[a:b] for a, b in pairwise(edges)]

    async def in_pieces() -> Any:
        for piece in pieces:
            yield piece

    async def read() -> EndpointTrouble | None:
        client = EndpointClient("secret", 5.0)
        await client._client.aclose()
        answer = httpx2.MockTransport(
            lambda request: httpx2.Response(status, headers=headers, content=in_pieces())
        )
        client._client = httpx2.AsyncClient(transport=answer)
        try:
            async for event in client.events("http://engine/v1/completions", b"{}"):
                if event != "[DONE]":
                    read_chunk(event)
        except EndpointTrouble as trouble:
            return trouble
        finally:
            await client.aclose()
        return None

    trouble = asyncio.run(read())
    assert "secret" not in str(trouble)
    assert not isinstance(trouble, Busy) or trouble.retry_after_s >= 0


@given(event=JSON | EVENTS)
def test_what_an_error_says_is_short(event: Any) -> None:
    try:
        event = orjson.loads(json.dumps(event, allow_nan=False))
    except ValueError:
        return  # What JSON cannot hold does not come out of JSON.
    assert len(error_text(event)) <= 500
