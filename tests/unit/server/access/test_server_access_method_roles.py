"""The table of what each method asks of its caller."""

import pytest

from rankserve.server.access.method_roles import METHOD_ROLES, ReflectionFor, may_call
from rankserve.server.access.principal import ANYBODY, NOBODY, Principal, Role
from rankserve.v1 import admin_pb2, ranker_pb2, scheduler_pb2

REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def test_the_table_has_every_method_of_the_api_and_no_other() -> None:
    methods = {
        f"/{service.full_name}/{method.name}"
        for file in (scheduler_pb2, ranker_pb2, admin_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert set(METHOD_ROLES) == methods


@pytest.mark.parametrize(
    ("role", "allowed", "refused"),
    [
        (
            Role.SUBMIT,
            {
                "Submit",
                "Generate",
                "Watch",
                "CancelRequest",
                "GetRequest",
                "ListRequests",
                "Score",
                "GetStats",
            },
            {"LoadRankerVersion", "ActivateRankerVersion", "Drain", "Pause", "Resume", "SetPolicy"},
        ),
        (
            Role.OBSERVE,
            {"GetRequest", "ListRequests", "GetStats", "WatchStats", "ListRankerVersions"},
            {"Submit", "Generate", "Watch", "CancelRequest", "Score", "ActivateRankerVersion", "Drain"},
        ),
        (Role.ADMIN, {method.rpartition("/")[2] for method in METHOD_ROLES}, set()),
    ],
)
def test_what_each_role_may_call(role: Role, allowed: set[str], refused: set[str]) -> None:
    principal = Principal("somebody", frozenset({role}))
    may = {m.rpartition("/")[2] for m in METHOD_ROLES if may_call(principal, m, "admin")}
    assert may >= allowed
    assert not may & refused


@pytest.mark.parametrize(("reflection", "submitter", "admin"), [("admin", False, True), ("all", True, True)])
def test_reflection(reflection: ReflectionFor, submitter: bool, admin: bool) -> None:
    for role, allowed in ((Role.SUBMIT, submitter), (Role.OBSERVE, submitter), (Role.ADMIN, admin)):
        assert may_call(Principal("somebody", frozenset({role})), REFLECT, reflection) is allowed


@pytest.mark.parametrize("method", ["/new.Service/Method", "", "nonsense", REFLECT])
def test_what_is_not_in_the_table_is_for_administrators(method: str) -> None:
    assert not may_call(Principal("somebody", frozenset({Role.SUBMIT, Role.OBSERVE})), method, "admin")
    assert may_call(ANYBODY, method, "admin")
    assert not may_call(NOBODY, method, "all")
