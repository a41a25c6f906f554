"""What the middleware in vLLM's server writes into requests, with a real ranker and a stub behind it."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.asgi import Echo, call, live
from support.toy_ranker import publish

from rankserve.server.gateway.json_bodies import with_fields
from rankserve.server.ranking.ranker import PromptScore
from rankserve.vllm.marks import Marks, read_marks
from rankserve.vllm.middleware import ScoreMarker, ScoreMiddleware

SCORE = PromptScore(-3.0, "toy/1", 40.0, 90.0)
OURS = {"rankserve_score": -3.0, "rankserve_expected_tokens": 40.0, "rankserve_expected_tokens_p90": 90.0}


def marked(body: dict[str, Any], score: PromptScore | None = SCORE, **how: Any) -> dict[str, Any]:
    headers = [(b"x-team", b"red"), (b"x-vllm-priority", b"1")]
    fields, left = ScoreMarker(**how).mark(body, headers, score)
    assert left == headers[:1]
    marked_body: dict[str, Any] = json.loads(with_fields(json.dumps(body).encode(), body, fields))
    return marked_body


def test_score_and_lengths_are_put_where_the_scheduler_finds_them() -> None:
    body = marked({"prompt": "x"})
    assert body == {"prompt": "x", "vllm_xargs": OURS}
    assert read_marks(body["vllm_xargs"]) == Marks(-3.0, 40.0, 90.0)


def test_a_version_without_calibration_gives_a_score_alone() -> None:
    assert marked({}, PromptScore(-3.0, "toy/1", None, None)) == {"vllm_xargs": {"rankserve_score": -3.0}}


def test_without_a_score_nothing_is_claimed() -> None:
    assert marked({"vllm_xargs": {"rankserve_score": 9.0}}, None) == {}
    assert read_marks(None) == read_marks({}) == Marks()


def test_what_clients_claim_is_taken_out_and_all_else_stays() -> None:
    given = {"priority": -5, "vllm_xargs": {"rankserve_score": 9.0, "rankserve_tenant": "vip", "mine": [1]}}
    assert marked(given) == {"vllm_xargs": {"mine": [1], **OURS}}


def test_trusted_clients_may_claim() -> None:
    body = {"priority": -5, "vllm_xargs": {"rankserve_score": 9.0, "rankserve_tenant": "vip"}}
    marker = ScoreMarker(trust_clients=True)
    assert not marker.needs_score(body)
    headers = [(b"x-vllm-priority", b"1")]
    assert marker.mark(body, headers, None) == ({"vllm_xargs": body["vllm_xargs"]}, headers)
    assert marker.needs_score({"vllm_xargs": {"rankserve_score": "9"}})
    assert marker.needs_score({})


def test_what_is_no_object_is_left_to_vllm() -> None:
    body = {"vllm_xargs": [1]}
    assert not ScoreMarker().needs_score(body)
    assert marked(body, None) == {"vllm_xargs": [1]}


@pytest.mark.parametrize(
    ("tenant_from", "tenant"), [("", ""), ("user", "ann"), ("header:X-Team", "red"), ("header:x-none", "")]
)
def test_whose_a_request_is(tenant_from: str, tenant: str) -> None:
    body = marked({"user": "ann"}, tenant_from=tenant_from)
    assert read_marks(body["vllm_xargs"]).tenant == tenant


def test_a_user_that_is_no_text_is_nobody() -> None:
    assert "rankserve_tenant" not in marked({"user": 7}, tenant_from="user")["vllm_xargs"]


def test_marks_of_the_wrong_kind_count_as_none() -> None:
    odd = {
        "rankserve_score": True,
        "rankserve_expected_tokens": -1,
        "rankserve_expected_tokens_p90": float("nan"),
    }
    assert read_marks({**odd, "rankserve_tenant": 5}) == Marks()
    assert read_marks({"rankserve_tenant": "x" * 500}).tenant == "x" * 128


@pytest.fixture
def behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Echo:
    publish(tmp_path)
    monkeypatch.setenv("RANKSERVE_VLLM_REPOSITORY", str(tmp_path))
    return Echo()


async def test_the_middleware_is_set_up_by_the_environment(behind: Echo) -> None:
    # As Starlette makes it.
    middleware = ScoreMiddleware(app=behind)
    await middleware._scorer.start()
    assert await call(middleware, {"prompt": "one two"}) == (200, b"ok")
    assert behind.fields["vllm_xargs"]["rankserve_score"] == -3.0
    assert "priority" not in behind.fields
    await middleware._scorer.aclose()


async def test_messages_are_scored_and_no_client_says_its_order_elsewhere(behind: Echo) -> None:
    middleware = ScoreMiddleware(behind)
    await middleware._scorer.start()
    header = (b"X-Vllm-Priority", b"-7")
    body = {"messages": [{"role": "user", "content": "one two"}], "vllm_xargs": {"rankserve_score": 9.0}}
    assert await call(middleware, body, path="/v1/messages", headers=[header]) == (200, b"ok")
    assert behind.fields["vllm_xargs"]["rankserve_score"] == -3.0
    assert not behind.header(b"X-Vllm-Priority")
    assert await call(middleware, body, path="/v1/messages/count_tokens", headers=[header]) == (200, b"ok")
    assert behind.fields == body
    assert not behind.header(b"X-Vllm-Priority")
    await middleware._scorer.aclose()


async def test_the_mode_chooses_what_is_written(behind: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKSERVE_VLLM_MODE", "priority")
    middleware = ScoreMiddleware(behind)
    said = await live(middleware)
    assert said[0]["type"] == "lifespan.startup.complete"
    middleware = ScoreMiddleware(behind)
    await middleware._scorer.start()
    await call(middleware, {"prompt": "one two"})
    assert behind.fields["priority"] > 0
    assert "vllm_xargs" not in behind.fields
    await middleware._scorer.aclose()


async def test_websockets_go_by(behind: Echo) -> None:
    seen: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        return None

    await ScoreMiddleware(application)({"type": "websocket", "path": "/v1/completions"}, nothing, nothing)
    assert seen == ["websocket"]


def test_a_wrong_setting_keeps_it_from_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKSERVE_VLLM_MODE", "other")
    with pytest.raises(ValueError, match="RANKSERVE_VLLM_MODE"):
        ScoreMiddleware(Echo())
    with pytest.raises(ValueError, match="an application"):
        ScoreMiddleware()
