"""Policies that look at when a request came or must be done, not at how long it will take."""

from dataclasses import dataclass
from typing import ClassVar

from rankserve.server.scheduling.policies.base import Policy
from rankserve.server.scheduling.request import Request


@dataclass(slots=True, frozen=True)
class Fcfs(Policy):
    """First come, first served: what every engine does by default, and the baseline of every comparison."""

    name: ClassVar[str] = "fcfs"

    def key(self, request: Request) -> float:
        return request.arrival_s


@dataclass(slots=True, frozen=True)
class EarliestDeadlineFirst(Policy):
    """By deadline; requests without one come last, by arrival."""

    name: ClassVar[str] = "edf"

    def key(self, request: Request) -> float:
        return request.deadline_or_inf_s
