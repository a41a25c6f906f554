"""Policies: whom to serve first. `make_policy` finds them by name.

Policies of other packages register under the entry point group ``rankserve.policies``: a callable that takes
no argument and returns a `Policy`.
"""

from rankserve.server.scheduling.policies.arrival import EarliestDeadlineFirst, Fcfs
from rankserve.server.scheduling.policies.base import BucketPolicy, Policy, RemainingTimePolicy
from rankserve.server.scheduling.policies.bounded import BoundedRanking
from rankserve.server.scheduling.policies.feedback import HighestResponseRatioNext, SkipJoinMlfq
from rankserve.server.scheduling.policies.oracles import ShortestJobFirst, ShortestRemainingTimeFirst
from rankserve.server.scheduling.policies.predicted import AgedRanking, Classification, CostAware, Ranking
from rankserve.server.scheduling.policies.registry import (
    BUILT_IN,
    ENTRY_POINT_GROUP,
    UnknownPolicyError,
    make_policy,
)

__all__ = [
    "BUILT_IN",
    "ENTRY_POINT_GROUP",
    "AgedRanking",
    "BoundedRanking",
    "BucketPolicy",
    "Classification",
    "CostAware",
    "EarliestDeadlineFirst",
    "Fcfs",
    "HighestResponseRatioNext",
    "Policy",
    "Ranking",
    "RemainingTimePolicy",
    "ShortestJobFirst",
    "ShortestRemainingTimeFirst",
    "SkipJoinMlfq",
    "UnknownPolicyError",
    "make_policy",
]
