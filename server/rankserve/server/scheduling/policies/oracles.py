"""Policies that know how long the answers will be: what a perfect ranker would gain. For replays only."""

from dataclasses import dataclass
from typing import ClassVar

from rankserve.server.scheduling.policies.base import RemainingTimePolicy
from rankserve.server.scheduling.request import Request


class _Oracle(RemainingTimePolicy):
    __slots__ = ()

    def length_tokens(self, request: Request) -> float:
        return request.true_output_tokens


@dataclass(slots=True, frozen=True)
class ShortestJobFirst(_Oracle):
    """By the recorded answer's length; unknown lengths count as ``max_tokens``."""

    name: ClassVar[str] = "sjf"

    def key(self, request: Request) -> float:
        return request.true_output_tokens


@dataclass(slots=True, frozen=True)
class ShortestRemainingTimeFirst(_Oracle):
    """By what is left of the recorded answer: without preemption the same as `ShortestJobFirst`."""

    name: ClassVar[str] = "srtf"
    key_per_output_token: ClassVar[float] = -1.0

    def key(self, request: Request) -> float:
        return request.true_output_tokens - request.output_tokens
