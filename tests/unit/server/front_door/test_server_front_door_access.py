"""Who may ask, and for whom."""

import asyncio

import pytest
from support.front_door import Door, error_of

from rankserve.server.access.principal import Principal, Role
from rankserve.server.errors import ServerDraining
from rankserve.server.events import EventStream

PRINCIPALS = {
    "token-of-a": Principal("a", frozenset({Role.SUBMIT}), frozenset({"a"})),
    "token-of-a-and-b": Principal("ab", frozenset({Role.SUBMIT}), frozenset({"a", "b"})),
    "token-of-all": Principal("all", frozenset({Role.SUBMIT})),
    "token-of-admin": Principal("admin", frozenset({Role.ADMIN})),
    "token-of-observer": Principal("observer", frozenset({Role.OBSERVE})),
}


@pytest.fixture
def door() -> Door:
    return Door(find=PRINCIPALS.get)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong"),
        bearer(""),
        {"authorization": "token-of-all"},
        {"authorization": "Basic token-of-all"},
    ],
)
async def test_without_a_token_nothing_is_answered_but_health(door: Door, headers: dict[str, str]) -> None:
    for response in (
        await door.complete({}, **headers),
        await door.chat({}, **headers),
        await door.client.get("/v1/models", headers=headers),
        await door.client.get("/nope", headers=headers),
    ):
        assert (response.status_code, error_of(response)["code"]) == (401, "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
    assert not door.specs
    assert (await door.client.get("/health", headers=headers)).status_code == 200


async def test_a_token_that_may_not_submit(door: Door) -> None:
    headers = bearer("token-of-observer")
    response = await door.complete({}, **headers)
    assert (response.status_code, error_of(response)["code"]) == (403, "not_permitted")
    assert (await door.client.get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("token", "body", "tenant"),
    [
        ("token-of-a", {}, "a"),
        ("token-of-a", {"tenant": "a"}, "a"),
        ("token-of-a", {"user": "someone"}, "a"),
        ("token-of-a-and-b", {"tenant": "b"}, "b"),
        ("token-of-a-and-b", {"tenant": "a", "user": "b"}, "a"),
        ("token-of-a-and-b", {"user": "b"}, "b"),
        ("token-of-all", {}, ""),
        ("token-of-all", {"user": "someone"}, "someone"),
        ("token-of-all", {"tenant": "x", "user": "someone"}, "x"),
        ("token-of-admin", {"tenant": "x"}, "x"),
    ],
)
async def test_the_tenant_is_one_that_the_caller_may_submit_for(
    door: Door, token: str, body: dict[str, str], tenant: str
) -> None:
    response = await door.complete(body, **bearer(token))
    assert response.status_code == 200, response.text
    assert door.specs[0].tenant == tenant


@pytest.mark.parametrize(
    ("token", "body"),
    [
        ("token-of-a", {"tenant": "b"}),
        ("token-of-a-and-b", {}),
        ("token-of-a-and-b", {"user": "c"}),
    ],
)
async def test_no_other_tenant_is_taken(door: Door, token: str, body: dict[str, str]) -> None:
    response = await door.complete(body, **bearer(token))
    assert (response.status_code, error_of(response)["code"]) == (403, "not_permitted")
    assert not door.specs


async def test_who_called_before_is_forgotten(door: Door) -> None:
    await door.complete({}, **bearer("token-of-a"))
    await door.complete({}, **bearer("token-of-all"))
    assert [spec.tenant for spec in door.specs] == ["a", ""]


async def test_more_than_one_token_is_none(door: Door) -> None:
    headers = [("authorization", "Bearer token-of-a"), ("authorization", "Bearer token-of-all")]
    response = await door.client.get("/v1/models", headers=headers)
    assert response.status_code == 401


@pytest.mark.parametrize(
    ("limits", "others_refused"),
    [({"max_open_streams_per_caller": 2}, False), ({"max_open_streams": 2}, True)],
)
async def test_open_requests_are_limited_and_let_go_of(limits: dict[str, int], others_refused: bool) -> None:
    door = Door(find=PRINCIPALS.get, **limits)
    answer, door.script = door.script, lambda spec, stream: streams.append(stream)
    streams: list[EventStream] = []
    waiting = [asyncio.create_task(door.complete({}, **bearer("token-of-a"))) for _ in range(2)]
    while len(streams) < 2:
        await asyncio.sleep(0)
    door.script = answer
    refused = await door.complete({}, **bearer("token-of-a"))
    assert (refused.status_code, error_of(refused)["code"]) == (429, "too_many_streams")
    other = await door.complete({}, **bearer("token-of-all"))
    assert other.status_code == (429 if others_refused else 200)
    for stream in streams:
        stream.leave(next(iter(stream.open_requests)), ServerDraining())
    await asyncio.gather(*waiting)
    assert (await door.complete({}, **bearer("token-of-a"))).status_code == 200
