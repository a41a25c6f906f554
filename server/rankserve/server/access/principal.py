"""Whom a call is made for, and what that lets it do."""

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from rankserve.server.errors import NotPermitted, RequestNotFound


class Role(StrEnum):
    """What a token lets its holder do."""

    # Submit, watch and cancel requests of its tenants; score prompts; see how the server does.
    SUBMIT = "submit"
    # See the requests of its tenants and how the server does; nothing else.
    OBSERVE = "observe"
    # Everything, for every tenant: ranker versions, drain, pause, policy, reflection.
    ADMIN = "admin"


@dataclass(slots=True, frozen=True)
class Principal:
    """A caller.

    Attributes:
        name: for logs; never the token.
        roles: what it may do.
        tenants: whose requests it may submit and see; None for everybody's.
    """

    name: str
    roles: frozenset[Role]
    tenants: frozenset[str] | None = None

    def tenant_for(self, asked: str) -> str:
        """The tenant that a request of this caller is served for.

        Args:
            asked: what the request says. Empty stands for the caller's only tenant, where it has one.

        Raises:
            NotPermitted: it may not submit for that tenant.
        """
        if self.tenants is None or asked in self.tenants:
            return asked
        if not asked and len(self.tenants) == 1:
            return next(iter(self.tenants))
        raise NotPermitted(f"this token may not submit requests of tenant {asked!r}")

    def check_may_see(self, request_id: str, tenant: str) -> None:
        """Raises RequestNotFound for a request of somebody else: that it exists is not its business."""
        if not self.may_see(tenant):
            raise RequestNotFound(request_id)

    def may_see(self, tenant: str) -> bool:
        return self.tenants is None or tenant in self.tenants


# Where no tokens are configured: everybody may do everything.
ANYBODY = Principal("anybody", frozenset(Role))

# Who calls what is open to all although tokens are configured: health checks.
NOBODY = Principal("nobody", frozenset(), frozenset())

_current: ContextVar[Principal] = ContextVar("principal", default=ANYBODY)


def current_principal() -> Principal:
    """The caller of the RPC or HTTP request that is being served."""
    return _current.get()


def set_current_principal(principal: Principal) -> None:
    """Says who calls; holds for the asyncio task that serves the call."""
    _current.set(principal)
