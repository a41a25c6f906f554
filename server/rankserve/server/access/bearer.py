"""The token that a call carries."""

from collections.abc import Iterable

from rankserve.server.access.principal import ANYBODY, Principal
from rankserve.server.access.tokens import TokenStore
from rankserve.server.errors import NotAuthenticated


def authenticate(tokens: TokenStore | None, metadata: Iterable[tuple[str, str | bytes]] | None) -> Principal:
    """Who calls with this metadata. Everybody is ANYBODY where there are no tokens.

    Raises:
        NotAuthenticated: it has no `authorization: Bearer TOKEN`, more than one, or one that is nobody's.
    """
    if tokens is None:
        return ANYBODY
    given = [value for key, value in metadata or () if key == "authorization"]
    if len(given) != 1 or not isinstance(given[0], str):
        raise NotAuthenticated
    scheme, _, token = given[0].partition(" ")
    principal = tokens.find(token.strip()) if scheme.lower() == "bearer" else None
    if principal is None:
        raise NotAuthenticated
    return principal
