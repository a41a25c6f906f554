"""Whom a request is made for: `Authorization: Bearer TOKEN`, as OpenAI's clients send their API key."""

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from rankserve.server.access.principal import (
    ANYBODY,
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
        principal = ANYBODY
        if self._find is not None and scope["path"] not in _OPEN_PATHS:
            scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
            found = self._find(token.strip()) if scheme.lower() == "bearer" else None
            if found is None:
                await to_failure(_unauthenticated()).response()(scope, receive, send)
                return
            principal = found
        set_current_principal(principal)
        await self._application(scope, receive, send)


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
