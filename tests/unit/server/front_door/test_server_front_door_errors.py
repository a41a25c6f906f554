"""Errors in OpenAI's shape, with the status that makes its clients do the right thing."""

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest
from support.front_door import Door, error_of, scope_of

from rankserve.server import errors
from rankserve.server.errors import RequestError
from rankserve.server.front_door.errors import to_failure
from rankserve.server.lifecycle import State

JSON = {"content-type": "application/json"}

EXPECTED = {
    errors.InvalidRequest("prompt", "must not be empty"): (400, "invalid_request_error", "invalid_request"),
    errors.RequestIdInUse("a"): (409, "invalid_request_error", "request_id_in_use"),
    errors.RequestNotFound("a"): (404, "not_found_error", "request_not_found"),
    errors.NotAuthenticated(): (401, "authentication_error", "unauthenticated"),
    errors.TooManyStreams(5, "in all"): (429, "rate_limit_error", "too_many_streams"),
    errors.NotPermitted("no"): (403, "permission_error", "not_permitted"),
    errors.QueueFull("full", 2.5): (429, "rate_limit_error", "queue_full"),
    errors.QuotaExceeded("a", "1 request", 2.5): (429, "rate_limit_error", "quota_exceeded"),
    errors.RequestShed(2.5): (429, "rate_limit_error", "shed"),
    errors.SlowClient(30): (429, "rate_limit_error", "slow_client"),
    errors.ServerDraining(): (503, "server_error", "draining"),
    errors.RequestCancelled(): (499, "invalid_request_error", "cancelled"),
    errors.StreamLost(): (499, "invalid_request_error", "stream_lost"),
    errors.DeadlinePassed(50): (504, "server_error", "deadline_passed"),
    errors.DeadlineUnreachable(50, 2.5): (504, "server_error", "deadline_unreachable"),
    errors.AnswerLost(): (409, "invalid_request_error", "answer_lost"),
    errors.JournalFailed(): (503, "server_error", "journal_failed"),
    errors.EngineFailed(): (503, "server_error", "engine_failed"),
    errors.EngineRefused("too long"): (400, "invalid_request_error", "engine_refused"),
    errors.EngineLost(): (503, "server_error", "engine_lost"),
    errors.InternalFailure(): (500, "server_error", "internal_failure"),
}


@pytest.mark.parametrize("error", EXPECTED, ids=lambda error: type(error).__name__)
def test_each_error_has_its_status(error: RequestError) -> None:
    failure = to_failure(error)
    described = failure.body["error"]
    assert (failure.status, described["type"], described["code"]) == EXPECTED[error]
    assert described["message"] == str(error)


def test_no_error_of_the_server_is_forgotten() -> None:
    def kinds(base: type[RequestError]) -> set[type[RequestError]]:
        return {kind for known in base.__subclasses__() for kind in (known, *kinds(known))}

    here = {kind for kind in kinds(RequestError) if kind.__module__ == errors.__name__}
    assert here == {type(error) for error in EXPECTED}


def test_an_error_in_no_table_is_internal_and_tells_nothing() -> None:
    class UnheardOfError(RequestError):
        pass

    failure = to_failure(UnheardOfError("secret"))
    assert (failure.status, failure.code) == (500, "internal_failure")
    assert "secret" not in failure.message


@pytest.mark.parametrize("error", EXPECTED, ids=lambda error: type(error).__name__)
def test_clients_are_told_when_to_try_again_and_when_not(error: RequestError) -> None:
    headers = to_failure(error).headers
    assert ("retry-after-ms" in headers) == hasattr(error, "retry_after_s")
    if "retry-after-ms" in headers:
        assert (headers["retry-after-ms"], headers["retry-after"]) == ("2500", "3")
    # OpenAI's clients would repeat these by themselves, and get the same answer.
    final = (
        errors.RequestIdInUse | errors.RequestCancelled | errors.DeadlinePassed | errors.DeadlineUnreachable
    )
    assert (headers.get("x-should-retry") == "false") == isinstance(error, final)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "\\udc00\\ud800"}',
        b'{"prompt": "a", "temperature": NaN}',
        b'{"prompt": "a", "temperature": 1e999}',
        b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": "a", "x": ' + b"[" * 100_000,
        b'{"prompt": "a", "x": ' + b'{"a":' * 100_000,
        '{"prompt": "a"}'.encode("utf-16"),
    ],
    ids=range(15),
)
async def test_garbage_is_a_bad_request(body: bytes) -> None:
    door = Door()
    for path in ("/v1/completions", "/v1/chat/completions"):
        response = await door.client.post(path, content=body, headers=JSON)
        assert response.status_code == 400, response.text
        error_of(response)
    assert not door.specs


async def test_any_text_that_json_can_spell_is_taken() -> None:
    door = Door()
    text = "\u0000 \u2028 \U0001f600 \ufffe é"
    for body in (json.dumps({"prompt": text}), json.dumps({"prompt": text}, ensure_ascii=False)):
        response = await door.client.post("/v1/completions", content=body.encode(), headers=JSON)
        assert response.status_code == 200
    assert [spec.prompt for spec in door.specs] == [text, text]


async def test_a_body_that_is_too_large_is_not_kept() -> None:
    door = Door(max_prompt_bytes=100)
    for size in (1 << 20, 20 << 20):
        body = json.dumps({"prompt": "x" * size}).encode()
        response = await door.client.post("/v1/completions", content=body, headers=JSON)
        assert (response.status_code, error_of(response)["code"]) == (413, "request_too_large")
        assert response.headers["connection"] == "close"


async def test_the_longest_prompt_fits_however_it_is_spelt() -> None:
    door = Door(max_prompt_bytes=200_000)
    body = b'{"prompt": "' + b"\\u0001" * 200_000 + b'"}'
    response = await door.client.post("/v1/completions", content=body, headers=JSON)
    assert response.status_code == 200


async def test_all_bodies_together_are_bounded() -> None:
    door = Door(max_waiting_bytes=1000)
    response = await door.complete({"prompt": "x" * 2000})
    assert (response.status_code, error_of(response)["code"]) == (429, "queue_full")
    assert "retry-after-ms" in response.headers
    assert (await door.complete({"prompt": "x" * 500})).status_code == 200, "nothing is counted twice"


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {},
        {**JSON, "content-encoding": "gzip"},
    ],
)
async def test_only_plain_json_is_read(headers: dict[str, str]) -> None:
    """A web page can make a browser post the others to a server that wants no token."""
    door = Door()
    response = await door.client.post("/v1/completions", content=b'{"prompt": "a"}', headers=headers)
    assert response.status_code == 415
    error_of(response)


async def test_paths_and_methods_that_are_not_there() -> None:
    door = Door()
    for method, path, status in (
        ("GET", "/nope", 404),
        ("GET", "/v1/embeddings", 404),
        ("GET", "/v1/completions", 405),
        ("DELETE", "/v1/models", 405),
    ):
        response = await door.client.request(method, path)
        assert response.status_code == status
        error_of(response)


async def test_a_fault_is_an_internal_error_that_tells_nothing() -> None:
    door = Door()

    def script(*_: object) -> None:
        raise RuntimeError("secret")

    door.script = script
    response = await door.complete({})
    assert (response.status_code, error_of(response)["code"]) == (500, "internal_failure")
    assert "secret" not in response.text


async def test_models_that_are_served() -> None:
    door = Door(served_model_name="chat-model")
    listed = (await door.client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["chat-model", "simulated/test"]
    for model in listed["data"]:
        assert set(model) == {"id", "object", "created", "owned_by", "max_model_len"}
        one = await door.client.get(f"/v1/models/{model['id']}")
        assert one.json() == model
        answer = await door.complete({"model": model["id"]})
        assert answer.json()["model"] == model["id"]
    assert (await door.complete({})).json()["model"] == "chat-model"


async def test_a_model_that_is_not_served() -> None:
    door = Door()
    for response in (
        await door.complete({"model": "gpt-5"}),
        await door.chat({"model": "gpt-5"}),
        await door.client.get("/v1/models/gpt-5"),
    ):
        assert response.status_code == 404
        error = error_of(response)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert not door.specs


@pytest.mark.parametrize("state", State)
async def test_health_is_that_of_the_server(state: State) -> None:
    door = Door()
    door.state = state
    response = await door.client.get("/health")
    expected = 200 if state in (State.SERVING, State.PAUSED) else 503
    assert (response.status_code, response.json()) == (expected, {"status": state.value})


async def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    door = Door(body_timeout_s=0.05)
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await door.application(scope_of("/v1/completions"), receive, send)
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["code"] == "body_timeout"
