"""Who may look at the page and the metrics."""

import base64
import binascii
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from rankserve.server.access.principal import ANYBODY, Principal, Role

# Whom a token stands for; None for a wrong one.
Find = Callable[[str], Principal | None]

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Guard:
    """Admits callers to what shows request ids.

    On loopback everybody is admitted who calls the host by a loopback name: a web page elsewhere that has its
    own name resolve to 127.0.0.1 gets nothing. Beyond it, wherever there are tokens, one with the role
    `observe` or `admin` is needed: as `Authorization: Bearer`, or as the password of HTTP Basic, for which
    browsers ask people.

    Args:
        find: whom a token stands for; None where no tokens are configured.
        loopback: whether the server can only be reached from its own machine.
    """

    def __init__(self, find: Find | None, *, loopback: bool) -> None:
        self._find = find
        self._loopback = loopback

    def admit(self, request: Request) -> Principal | Response:
        """Whom the request is answered for, or what it is refused with."""
        if self._loopback:
            if _host_name(request) in _LOOPBACK_NAMES:
                return ANYBODY
            return PlainTextResponse("call this server by a loopback name, such as localhost\n", 421)
        if self._find is None:
            return ANYBODY
        token = _token(request.headers.get("authorization", ""))
        principal = self._find(token) if token else None
        if principal is None:
            ask = {"www-authenticate": 'Basic realm="RankServe: any user name, the token as password"'}
            return PlainTextResponse("missing or wrong token\n", 401, ask)
        if not principal.roles & {Role.OBSERVE, Role.ADMIN}:
            return PlainTextResponse("this token may not observe the server\n", 403)
        return principal


def _host_name(request: Request) -> str:
    host = request.headers.get("host", "")
    return host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0].lower()


def _token(authorization: str) -> str:
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""
