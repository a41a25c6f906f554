"""Policies by name, built-in or registered by other packages."""

from collections.abc import Callable
from importlib.metadata import entry_points

from rankserve.server.scheduling.policies.arrival import EarliestDeadlineFirst, Fcfs
from rankserve.server.scheduling.policies.base import Policy
from rankserve.server.scheduling.policies.bounded import BoundedRanking
from rankserve.server.scheduling.policies.feedback import HighestResponseRatioNext, SkipJoinMlfq
from rankserve.server.scheduling.policies.oracles import ShortestJobFirst, ShortestRemainingTimeFirst
from rankserve.server.scheduling.policies.predicted import AgedRanking, Classification, CostAware, Ranking

ENTRY_POINT_GROUP = "rankserve.policies"

BUILT_IN: dict[str, Callable[[], Policy]] = {
    policy.name: policy
    for policy in (
        Fcfs,
        BoundedRanking,
        Ranking,
        AgedRanking,
        CostAware,
        Classification,
        SkipJoinMlfq,
        HighestResponseRatioNext,
        EarliestDeadlineFirst,
        ShortestJobFirst,
        ShortestRemainingTimeFirst,
    )
}


class UnknownPolicyError(ValueError):
    """No policy of that name."""


def make_policy(name: str) -> Policy:
    """The policy of that name with its default parameters.

    Raises:
        UnknownPolicyError: lists the names there are.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]()
    registered = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in registered:
        names = ", ".join(sorted([*BUILT_IN, *registered]))
        raise UnknownPolicyError(f"unknown policy {name!r}; there are: {names}")
    policy: Policy = registered[name].load()()
    return policy
