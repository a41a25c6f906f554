"""Policies that learn from what happens: nothing is predicted, or waiting itself counts."""

from dataclasses import dataclass
from typing import ClassVar

from rankserve.server.scheduling.policies.base import BucketPolicy, Policy
from rankserve.server.scheduling.policies.elementwise import at_least_one, floor, log
from rankserve.server.scheduling.request import Request


@dataclass(slots=True, frozen=True)
class SkipJoinMlfq(Policy):
    """Multi-level feedback queue: each level serves twice as many tokens as the one above, then demotes.

    Skip-join (FastServe, Wu et al. 2023, section 4.1): a request joins at the first level whose quantum
    covers its first step, which is its prefill. FCFS within a level. A running request is demoted where it
    stands; with preemption one of a better level takes its place.

    Attributes:
        quantum_tokens: output tokens that the first level serves.
        levels: how many there are; the last serves without end.
        prefill_tokens_per_step: prompt tokens whose prefill takes as long as one decode step.
    """

    quantum_tokens: int = 16
    levels: int = 8
    prefill_tokens_per_step: int = 64
    name: ClassVar[str] = "mlfq"

    def __post_init__(self) -> None:
        if self.quantum_tokens < 1 or self.levels < 1 or self.prefill_tokens_per_step < 1:
            raise ValueError(f"mlfq needs a quantum, levels and prefill tokens of at least 1, got {self}")

    def join_level(self, request: Request) -> int:
        """The level at which it joins, 0 the best. Works elementwise."""
        covered = self.quantum_tokens * self.prefill_tokens_per_step
        return sum(request.prompt_tokens > covered * 2**level for level in range(self.levels - 1))

    def level(self, join_level: int, output_tokens: int) -> int:
        """The level after this many tokens. Works elementwise.

        A request that joined at level j leaves level l once it has the quanta of j to l:
        ``quantum (2^j + ... + 2^l) = quantum (2^(l+1) - 2^j)``, which nobody is short of for l < j.
        """
        return sum(
            output_tokens >= self.quantum_tokens * (2 ** (level + 1) - 2**join_level)
            for level in range(self.levels - 1)
        )

    def key(self, request: Request) -> float:
        return self.level(self.join_level(request), request.output_tokens)

    def prefers(self, head: Request, victim: Request, cost_tokens: float) -> bool:
        return self.key(head) < self.key(victim)


@dataclass(slots=True, frozen=True)
class HighestResponseRatioNext(BucketPolicy):
    """By (wait + service) / service, highest first (Brinch Hansen 1971), service being the predicted length.

    Exact over lengths rounded to buckets that are 25 % wide. A request without a prediction comes last.
    """

    name: ClassVar[str] = "hrrn"
    needs_expected_tokens: ClassVar[bool] = True

    def bucket(self, request: Request) -> float:
        return floor(log(at_least_one(request.expected_tokens)) / log(_WIDTH))

    def service_tokens(self, bucket: float) -> float:
        """The length that stands for a bucket; infinite without a prediction."""
        tokens: float = _WIDTH ** (bucket + 0.5)
        return tokens

    def bucket_key(self, bucket: float, arrival_s: float, now_s: float) -> float:
        return -(now_s - arrival_s) / self.service_tokens(bucket)


_WIDTH = 1.25
