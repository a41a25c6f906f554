"""Policies that order by what the ranker predicts."""

from dataclasses import dataclass
from typing import ClassVar

from rankserve.server.scheduling.policies.base import Policy, RemainingTimePolicy
from rankserve.server.scheduling.policies.elementwise import exp, floor, lognormal_sigma
from rankserve.server.scheduling.request import Request


class Predicted(RemainingTimePolicy):
    """Believes the predicted median."""

    __slots__ = ()
    preempts_by_expected_tokens: ClassVar[bool] = True

    def length_tokens(self, request: Request) -> float:
        return request.expected_tokens


@dataclass(slots=True, frozen=True)
class Ranking(Predicted):
    """By the ranker's score, highest first (Fu et al. 2024, section 4)."""

    name: ClassVar[str] = "ranking"
    needs_scores: ClassVar[bool] = True

    def key(self, request: Request) -> float:
        return -request.score


@dataclass(slots=True, frozen=True)
class AgedRanking(Policy):
    """By predicted length, less a credit that grows with the wait.

    Two waiting requests earn credit at the same rate, so their order never changes and
    ``expected_tokens + ageing_tokens_per_s * arrival`` is a static key for it. At rate 0 it is ranking by
    predicted length; as the rate grows it becomes FCFS.

    Attributes:
        ageing_tokens_per_s: predicted tokens that a second of waiting makes up for.
    """

    ageing_tokens_per_s: float = 10.0
    name: ClassVar[str] = "aged_ranking"
    needs_expected_tokens: ClassVar[bool] = True

    def key(self, request: Request) -> float:
        return request.expected_tokens + self.ageing_tokens_per_s * request.arrival_s


@dataclass(slots=True, frozen=True)
class Classification(Predicted):
    """By bucket of predicted length, FCFS within one (the baseline of Fu et al. 2024, after S3).

    Attributes:
        bucket_tokens: width of a bucket.
    """

    bucket_tokens: float = 100.0
    name: ClassVar[str] = "classification"
    needs_expected_tokens: ClassVar[bool] = True

    def key(self, request: Request) -> float:
        return floor(request.expected_tokens / self.bucket_tokens)


@dataclass(slots=True, frozen=True)
class CostAware(Predicted):
    """By the KV cache a request is expected to occupy, summed over the steps it does: KV-token-steps.

    An answer of o tokens to a prompt of p holds p, p + 1, ... p + o tokens: ``p o + o^2 / 2``. The
    expectation is over a lognormal length with the calibration's median and 90th percentile; where there is
    no 90th percentile, over the median alone.

    Attributes:
        prefill_weight: steps for which the prompt is held before the first token.
    """

    prefill_weight: float = 1.0
    name: ClassVar[str] = "cost_aware"
    needs_expected_tokens: ClassVar[bool] = True

    def key(self, request: Request) -> float:
        median, prompt = request.expected_tokens, request.prompt_tokens
        variance = lognormal_sigma(median, request.expected_tokens_p90) ** 2
        mean = median * exp(variance / 2)
        # The mean of the squares is exp(variance) times the square of the mean. Written so, an unknown length
        # gives infinity for an empty prompt too.
        return mean * (prompt + mean * exp(variance) / 2) + self.prefill_weight * prompt
