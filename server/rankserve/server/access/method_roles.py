"""What each method of the API asks of its caller: the one table."""

from typing import Literal

from rankserve.server.access.principal import Principal, Role

ReflectionFor = Literal["admin", "all", "off"]

# gRPC's health checks: load balancers have no token.
OPEN_SERVICE = "/grpc.health.v1.Health/"
_REFLECTION = ("/grpc.reflection.v1alpha.ServerReflection/", "/grpc.reflection.v1.ServerReflection/")

_SCHEDULER = "/rankserve.v1.SchedulerService"
_RANKER = "/rankserve.v1.RankerService"
_ADMIN = "/rankserve.v1.AdminService"

_SUBMITS = frozenset({Role.SUBMIT, Role.ADMIN})
_OBSERVES = frozenset({Role.OBSERVE, Role.SUBMIT, Role.ADMIN})
_ADMINISTERS = frozenset({Role.ADMIN})

# Any one of the roles will do. A method that is not here is for administrators.
METHOD_ROLES = {
    f"{_SCHEDULER}/Submit": _SUBMITS,
    f"{_SCHEDULER}/Generate": _SUBMITS,
    f"{_SCHEDULER}/Watch": _SUBMITS,
    f"{_SCHEDULER}/CancelRequest": _SUBMITS,
    f"{_SCHEDULER}/GetRequest": _OBSERVES,
    f"{_SCHEDULER}/ListRequests": _OBSERVES,
    f"{_SCHEDULER}/GetStats": _OBSERVES,
    f"{_SCHEDULER}/WatchStats": _OBSERVES,
    f"{_RANKER}/Score": _SUBMITS,
    f"{_RANKER}/ListRankerVersions": _OBSERVES,
    f"{_RANKER}/LoadRankerVersion": _ADMINISTERS,
    f"{_RANKER}/ActivateRankerVersion": _ADMINISTERS,
    f"{_ADMIN}/Drain": _ADMINISTERS,
    f"{_ADMIN}/Pause": _ADMINISTERS,
    f"{_ADMIN}/Resume": _ADMINISTERS,
    f"{_ADMIN}/SetPolicy": _ADMINISTERS,
}


def roles_for(method: str, reflection: ReflectionFor) -> frozenset[Role]:
    """The roles that may call a method, given by its full name, "/package.Service/Method"."""
    if reflection == "all" and method.startswith(_REFLECTION):
        return _OBSERVES
    return METHOD_ROLES.get(method, _ADMINISTERS)


def may_call(principal: Principal, method: str, reflection: ReflectionFor) -> bool:
    return not principal.roles.isdisjoint(roles_for(method, reflection))
