"""Whom a request is made for: `Authorization: Bearer TOKEN`, as OpenAI's clients send their API key."""

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from rankserve.server.access.principal import (
    ANYBODY,
    NOBODY,
    Principal,
    Role,
    current_principal,
    set_current_principal,
)
from rankserve.server.errors import NotPermitted
from rankserve.server.front_door.errors import HttpError, to_failure

FindPrincipal = Callable[[str], Principal | None]
_OPEN_PATHS = ("/health",)


class Authentication:
    """ASGI middleware. Answers 401 itself; what a principal may do is up to what is behind.

    Args:
        application: what is behind.
        find: the holder of a token, None for a token that is nobody's. None lets everybody do everything.
    """

    def __init__(self, application: ASGIApp, find: FindPrincipal | None) -> None:
        self._application = application
        self._find = find

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal = self._authenticate(scope)
        if principal is None:
            await to_failure(_unauthenticated()).response()(scope, receive, send)
            return
        set_current_principal(principal)
        await self._application(scope, receive, send)

    def _authenticate(self, scope: Scope) -> Principal | None:
        if self._find is None:
            return ANYBODY
        if scope["path"] in _OPEN_PATHS:
            return NOBODY
        given = Headers(scope=scope).getlist("authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        return self._find(token.strip()) if scheme.lower() == "bearer" else None


def check_may_submit() -> None:
    """Raises NotPermitted unless the caller may submit requests."""
    if not current_principal().roles & {Role.SUBMIT, Role.ADMIN}:
        raise NotPermitted("this token may not submit requests")


def _unauthenticated() -> HttpError:
    return HttpError(
        401,
        "invalid_api_key",
        "missing or wrong API key: send 'authorization: Bearer TOKEN'",
        headers={"www-authenticate": "Bearer"},
    )
