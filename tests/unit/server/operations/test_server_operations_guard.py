"""Who may look: by address, by token, by role."""

import base64

import pytest
from starlette.requests import Request
from starlette.responses import Response

from rankserve.server.access.principal import ANYBODY, Principal, Role
from rankserve.server.operations.guard import Guard

OBSERVER = Principal("grafana", frozenset({Role.OBSERVE}))
ADMIN = Principal("admin", frozenset({Role.ADMIN}))
CLIENT = Principal("client", frozenset({Role.SUBMIT}))
TOKENS = {"observer-token": OBSERVER, "admin-token": ADMIN, "client-token": CLIENT}


def request(**headers: str) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request(
        {"type": "http", "method": "GET", "path": "/", "query_string": b"token=admin-token", "headers": raw}
    )


def status(admitted: Principal | Response) -> int:
    assert isinstance(admitted, Response), admitted
    return admitted.status_code


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


@pytest.mark.parametrize("host", ["localhost", "localhost:9464", "127.0.0.1:9464", "[::1]:9464", "LOCALHOST"])
def test_loopback_admits_everybody_who_calls_it_so(host: str) -> None:
    assert Guard(TOKENS.get, loopback=True).admit(request(host=host)) is ANYBODY


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "[::2]:80", "localhost.evil:80"]
)
def test_a_page_elsewhere_cannot_read_loopback_through_its_own_name(host: str) -> None:
    assert status(Guard(None, loopback=True).admit(request(host=host))) == 421


def test_without_tokens_everybody_is_admitted() -> None:
    assert Guard(None, loopback=False).admit(request(host="server")) is ANYBODY


@pytest.mark.parametrize(
    ("authorization", "principal"),
    [
        ("Bearer observer-token", OBSERVER),
        ("bearer admin-token", ADMIN),
        (basic("observer-token"), OBSERVER),
    ],
)
def test_a_token_that_may_observe_is_admitted(authorization: str, principal: Principal) -> None:
    assert Guard(TOKENS.get, loopback=False).admit(request(authorization=authorization)) is principal


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer ", "Bearer wrong", basic("wrong"), "Basic !!!", "Basic /w==", "Digest admin-token"],
)
def test_others_are_asked_for_a_token_and_one_in_the_url_is_none(authorization: str) -> None:
    refused = Guard(TOKENS.get, loopback=False).admit(request(authorization=authorization))
    assert status(refused) == 401
    assert isinstance(refused, Response)
    assert refused.headers["www-authenticate"].startswith("Basic ")


def test_a_token_that_may_only_submit_is_refused() -> None:
    assert (
        status(Guard(TOKENS.get, loopback=False).admit(request(authorization="Bearer client-token"))) == 403
    )
