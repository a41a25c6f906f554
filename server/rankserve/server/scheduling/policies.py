"""Policies: a key for each request, smaller is served sooner.

A key does not change while a request waits (unless it is re-scored), so the queue never needs re-sorting.
Ties are broken by arrival. Policies of other packages register under the entry point group
``rankserve.policies``: a callable that takes no argument and returns a policy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

from rankserve.server.scheduling.request import Request

ENTRY_POINT_GROUP = "rankserve.policies"


class Policy(Protocol):
    """An order of requests."""

    @property
    def name(self) -> str: ...

    @property
    def needs_expected_tokens(self) -> bool:
        """Whether it is of no use with a ranker that predicts an order but no lengths."""
        ...

    def key(self, request: Request) -> float:
        """The request's place in the order; smaller is sooner. Must not depend on the time."""
        ...


class UnknownPolicyError(ValueError):
    """No policy of that name."""


@dataclass(slots=True, frozen=True)
class Fcfs:
    """First come, first served: what every engine does by default, and the baseline of every comparison."""

    name: str = "fcfs"
    needs_expected_tokens: bool = False

    def key(self, request: Request) -> float:
        return request.arrival_s


@dataclass(slots=True, frozen=True)
class Ranking:
    """By the ranker's score, highest first (Fu et al. 2024, section 4)."""

    name: str = "ranking"
    needs_expected_tokens: bool = False

    def key(self, request: Request) -> float:
        return -request.score


@dataclass(slots=True, frozen=True)
class AgedRanking:
    """By predicted length, less a credit that grows with the wait.

    Two waiting requests earn credit at the same rate, so their order never changes and
    ``expected_tokens + ageing_tokens_per_s * arrival`` is a static key for it. At rate 0 it is ranking by
    predicted length; as the rate grows it becomes FCFS.

    Attributes:
        ageing_tokens_per_s: predicted tokens that a second of waiting makes up for.
    """

    ageing_tokens_per_s: float = 10.0
    name: str = "aged_ranking"
    needs_expected_tokens: bool = True

    def key(self, request: Request) -> float:
        return request.expected_tokens + self.ageing_tokens_per_s * request.arrival_s


@dataclass(slots=True, frozen=True)
class ShortestJobFirst:
    """Oracle: by the recorded answer's length; unknown lengths count as ``max_tokens``."""

    name: str = "sjf"
    needs_expected_tokens: bool = False

    def key(self, request: Request) -> float:
        if request.replay_output_tokens is None:
            return float(request.max_tokens)
        return float(min(request.replay_output_tokens, request.max_tokens))


BUILT_IN: dict[str, Callable[[], Policy]] = {
    "fcfs": Fcfs,
    "ranking": Ranking,
    "aged_ranking": AgedRanking,
    "sjf": ShortestJobFirst,
}


def make_policy(name: str) -> Policy:
    """The policy of that name, built-in or registered by another package.

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
