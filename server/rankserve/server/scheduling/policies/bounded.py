"""Ranking whose longest wait is about that of FCFS."""

from dataclasses import dataclass, field
from typing import ClassVar

from rankserve.server.scheduling.fcfs_bound import PROMPT_TOKEN_WORK, FcfsBoundSettings
from rankserve.server.scheduling.policies.elementwise import at_least_one, log
from rankserve.server.scheduling.policies.predicted import Predicted
from rankserve.server.scheduling.request import Request


@dataclass(slots=True, frozen=True)
class BoundedRanking(Predicted):
    """Smallest first, but no later than about the longest wait that FCFS would have given of late.

    The order is Smith's rule (1956) for the mean of latency per output token: a request of predicted length L
    and work ``L + 0.2 x prompt`` weighs 1 / L, so its key is the logarithm of the geometric mean of both.

    Attributes:
        bound: of the wait.
    """

    bound: FcfsBoundSettings = field(default_factory=FcfsBoundSettings)
    name: ClassVar[str] = "bounded_ranking"
    needs_expected_tokens: ClassVar[bool] = True

    def key(self, request: Request) -> float:
        tokens = at_least_one(request.expected_tokens)
        work = tokens + PROMPT_TOKEN_WORK * request.prompt_tokens
        return (log(tokens) + log(work)) / 2 + request.ageing
