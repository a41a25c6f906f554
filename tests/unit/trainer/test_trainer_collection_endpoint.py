"""One request to an endpoint: what is sent, and what each way to fail becomes."""

import json
from collections.abc import Iterator

import pytest
from support.openai_endpoint import FakeEndpoint, Reply, answer

from rankserve.trainer.collection.answers import Answer
from rankserve.trainer.collection.errors import (
    CollectionError,
    EndpointError,
    PromptRefusedError,
    UnansweredError,
)
from rankserve.trainer.collection.prompts import Message, Prompt
from rankserve.trainer.collection.sampling import Api, Sampling

pytest.importorskip("httpx2", reason="needs the extra collect: pip install 'rankserve[collect]'")

from rankserve.trainer.collection.endpoint import MOST_RESPONSE_BYTES, Endpoint

KEY = "sk-very-secret"
PROMPT = Prompt("p1", (Message("user", "Tell me all about the quiet rivers of the far north, please."),))
SAMPLING = Sampling("fake-7b", max_tokens=300, temperature=0.7)


@pytest.fixture
def fake() -> Iterator[FakeEndpoint]:
    with FakeEndpoint() as endpoint:
        yield endpoint


async def ask(
    fake: FakeEndpoint, sampling: Sampling = SAMPLING, sample: int = 0, timeout_s: float = 30.0
) -> Answer:
    async with Endpoint(fake.url + "/", sampling, api_key=KEY, timeout_s=timeout_s) as endpoint:
        return await endpoint.ask(PROMPT, sample)


async def test_a_chat_request_and_its_answer(fake: FakeEndpoint) -> None:
    got = await ask(fake)
    (asked,) = fake.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {
        "model": "fake-7b",
        "messages": [{"role": "user", "content": PROMPT.text}],
        "max_tokens": 300,
        "temperature": 0.7,
        "n": 1,
        "stream": False,
    }
    expected = answer(asked)
    assert got.output_tokens == expected["usage"]["completion_tokens"]
    assert got.input_tokens == expected["usage"]["prompt_tokens"]
    assert got.censored == (expected["choices"][0]["finish_reason"] == "length")
    assert got.latency_s > 0


async def test_a_completion_request_with_everything_set(fake: FakeEndpoint) -> None:
    extra = {"min_tokens": 1, "max_tokens": None, "max_completion_tokens": 300}
    sampling = Sampling("m", 300, top_p=0.9, api=Api.COMPLETIONS, seed=5, extra=extra)
    fake.reply = lambda asked: Reply(body=json.dumps(answer_of(3)).encode())
    await ask(fake, sampling)
    await ask(fake, sampling, sample=1)
    first, second = (asked.body for asked in fake.asked)
    assert fake.asked[0].path == "/v1/completions"
    assert first.pop("seed") != second.pop("seed")
    assert (
        first
        == second
        == {
            "model": "m",
            "prompt": PROMPT.text,
            "temperature": 1.0,
            "top_p": 0.9,
            "n": 1,
            "stream": False,
            "min_tokens": 1,
            "max_completion_tokens": 300,
        }
    )


def answer_of(tokens: object, finish_reason: object = "stop") -> dict[str, object]:
    return {"choices": [{"finish_reason": finish_reason}], "usage": {"completion_tokens": tokens}}


@pytest.mark.parametrize(
    ("document", "length", "censored"),
    [
        (answer_of(17), 17, False),
        (answer_of(300, "length"), 300, True),
        (answer_of(0), 1, False),
        (answer_of(12, "tool_calls"), 12, False),
    ],
)
async def test_lengths(fake: FakeEndpoint, document: dict[str, object], length: int, censored: bool) -> None:
    fake.reply = lambda asked: Reply(body=json.dumps(document).encode())
    got = await ask(fake)
    assert (got.output_tokens, got.censored, got.input_tokens) == (length, censored, None)


NO_USAGE = json.dumps({"choices": [{"finish_reason": "stop"}]}).encode()


@pytest.mark.parametrize(
    ("reply", "kind", "told"),
    [
        (
            Reply.error(400, "context length exceeded"),
            PromptRefusedError,
            "HTTP 400: context length exceeded",
        ),
        (Reply.error(422, "no"), PromptRefusedError, "422"),
        (Reply(413, b"<html>too big</html>"), PromptRefusedError, "HTTP 413"),
        (Reply.error(401, "bad key"), EndpointError, "--api-key-env"),
        (Reply.error(403, "forbidden"), EndpointError, "must not use"),
        (Reply.error(404, "model unknown"), EndpointError, "check --model"),
        (Reply(302, b"", {"Location": "http://127.0.0.1:1/"}), EndpointError, "final --url"),
        (Reply(429, b'{"error": {"code": "insufficient_quota", "message": "m"}}'), EndpointError, "pay"),
        (Reply(body=NO_USAGE), EndpointError, "usage.completion_tokens"),
        (Reply(body=json.dumps(answer_of(True)).encode()), EndpointError, "usage.completion_tokens"),
        (Reply(body=json.dumps(answer_of(-1)).encode()), EndpointError, "usage.completion_tokens"),
        (Reply(body=json.dumps(answer_of(3, "content_filter")).encode()), PromptRefusedError, "filter"),
        (Reply(body=json.dumps(answer_of(3, "abort")).encode()), UnansweredError, "broken off"),
        (Reply(body=json.dumps(answer_of(3, None)).encode()), UnansweredError, "broken off"),
        (Reply.error(429, "slow down"), UnansweredError, "429: slow down"),
        (Reply.error(500, "oops"), UnansweredError, "500"),
        (Reply.error(503, "starting"), UnansweredError, "503"),
        (Reply(body=b"{'not': json"), UnansweredError, "HTTP 200"),
        (Reply(body=b"[" * 100_000), UnansweredError, "HTTP 200"),
        (Reply(body=b'{"choices": []}'), UnansweredError, "HTTP 200"),
        (Reply(body=b"x" * (MOST_RESPONSE_BYTES + 1)), UnansweredError, "bytes"),
        (Reply(body=b"{}" * 50, behaviour="cut"), UnansweredError, "RemoteProtocolError"),
        (Reply(204), UnansweredError, "204"),
    ],
)
async def test_each_way_to_fail(fake: FakeEndpoint, reply: Reply, kind: type[Exception], told: str) -> None:
    fake.reply = lambda asked: reply
    with pytest.raises(kind) as error:
        await ask(fake)
    assert told in str(error.value)
    assert len(fake.asked) == 1, "a redirect was followed, or a request repeated"


async def test_a_request_that_hangs_is_given_up(fake: FakeEndpoint) -> None:
    fake.reply = lambda asked: Reply(behaviour="hang")
    with pytest.raises(UnansweredError, match=r"within 0\.2 s"):
        await ask(fake, timeout_s=0.2)


async def test_nobody_listens() -> None:
    with FakeEndpoint() as fake:
        url = fake.url
    async with Endpoint(url, SAMPLING) as endpoint:
        with pytest.raises(UnansweredError, match="ConnectError"):
            await endpoint.ask(PROMPT, 0)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-3"}, None),
        ({}, None),
    ],
)
async def test_retry_after(fake: FakeEndpoint, headers: dict[str, str], wait_s: float | None) -> None:
    fake.reply = lambda asked: Reply(429, b"", headers)
    with pytest.raises(UnansweredError) as error:
        await ask(fake)
    assert error.value.retry_after_s == wait_s


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_what_the_endpoint_repeats_of_key_and_prompt_is_not_passed_on(
    fake: FakeEndpoint, status: int
) -> None:
    fake.reply = lambda asked: Reply.error(status, f"key {KEY}: cannot take {asked.prompt[8:50]!r}\x1b[2J")
    with pytest.raises((PromptRefusedError, EndpointError, UnansweredError)) as error:
        await ask(fake)
    message = str(error.value)
    assert "cannot take" in message
    assert KEY not in message
    assert "quiet rivers" not in message
    assert "\x1b" not in message


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000/v1", "ftp://h/v1", "http://", "http://u:p@h/v1", "http://h/v1?key=1", "http://h:x/"],
)
def test_a_url_that_is_no_endpoints_is_refused(url: str) -> None:
    with pytest.raises(CollectionError, match="--url must"):
        Endpoint(url, SAMPLING)


def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated() -> None:
    with pytest.raises(CollectionError) as error:
        Endpoint("http://h/v1", SAMPLING, api_key="sk-a\nX-Other: b")
    assert "sk-a" not in str(error.value)


async def test_no_proxy_is_sent_key_and_prompts(fake: FakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with FakeEndpoint() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        await ask(fake)
        assert len(fake.asked) == 1
        assert not proxy.asked


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_extra_fields_do_not_change_the_cap_that_is_recorded(name: str) -> None:
    with pytest.raises(
        CollectionError, match=f"--extra holds {name} 100, and the cap is 300: .*--max-tokens"
    ):
        Sampling("m", 300, extra={name: 100})
    Sampling("m", 300, extra={"max_tokens": None, name: 300})


def test_extra_fields_do_not_replace_options() -> None:
    with pytest.raises(CollectionError, match="n, seed"):
        Sampling("m", 10, extra={"n": 2, "seed": 1})
