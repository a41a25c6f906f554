"""What a policy is."""

from abc import ABC, abstractmethod
from typing import ClassVar

from rankserve.server.scheduling.fcfs_bound import FcfsBoundSettings
from rankserve.server.scheduling.request import Request


class Policy(ABC):
    """An order of requests: those with the smaller key are served sooner, ties by arrival.

    A key is computed when a request is queued, queued again or scored again, with the tokens it has produced
    by then, and must not depend on the time: the queue never sorts again. (`BucketPolicy` is for orders that
    do depend on it.) Among running requests it is computed when a victim is chosen.

    Simulators call `key` once with whole columns of requests: an object with the attributes of `Request`,
    each an array. So built-in keys are written in arithmetic that also works elementwise.

    Attributes:
        name: what it is called in settings and results.
        needs_scores: whether it is of no use without a ranker.
        needs_expected_tokens: whether it is of no use with a ranker that predicts an order but no lengths.
        preempts_by_expected_tokens: whether that holds of its preemption.
        bound: of the wait, if the policy brings one; see `fcfs_bound`.
        key_per_output_token: by how much the key grows with each token produced, where that is constant.
    """

    __slots__ = ()

    name: ClassVar[str]
    needs_scores: ClassVar[bool] = False
    needs_expected_tokens: ClassVar[bool] = False
    preempts_by_expected_tokens: ClassVar[bool] = False
    key_per_output_token: ClassVar[float] = 0.0
    bound: FcfsBoundSettings | None = None

    @abstractmethod
    def key(self, request: Request) -> float:
        """The request's place in the order; smaller is sooner."""

    def key_at(self, request: Request, now_s: float) -> float:
        """The place at this moment, for policies whose order changes with time."""
        return self.key(request)

    def prefers(self, head: Request, victim: Request, cost_tokens: float) -> bool:
        """Whether to evict `victim`, which runs, so that `head` can start; both of one band.

        Args:
            head: the waiting request whose turn it is.
            victim: the running request that is served last by this order.
            cost_tokens: decode steps of one sequence's worth of work that the eviction costs.

        By default never: a policy without an idea of what is left to do has nothing to gain by it.
        """
        return False


class RemainingTimePolicy(Policy):
    """A policy that preempts by what it believes is left to do (SRTF's rule, with hysteresis)."""

    __slots__ = ()

    @abstractmethod
    def length_tokens(self, request: Request) -> float:
        """How long it believes the whole answer to be. Works elementwise."""

    def remaining_tokens(self, request: Request) -> float:
        """Output tokens that it believes are still to be produced."""
        return max(self.length_tokens(request) - request.output_tokens, 0.0)

    def prefers(self, head: Request, victim: Request, cost_tokens: float) -> bool:
        return self.remaining_tokens(victim) - self.remaining_tokens(head) > cost_tokens


class BucketPolicy(Policy):
    """An order that changes with time, over a small number of buckets in each of which it is by arrival.

    The next request is the first of the bucket with the smallest `bucket_key` at that moment, ties by the
    smaller bucket, so the choice costs as many key computations as there are buckets, whatever the queue.
    """

    __slots__ = ()

    @abstractmethod
    def bucket(self, request: Request) -> float:
        """Its bucket; must not depend on the time, works elementwise."""

    @abstractmethod
    def bucket_key(self, bucket: float, arrival_s: float, now_s: float) -> float:
        """The key at this moment of a request in this bucket that arrived then."""

    def key(self, request: Request) -> float:
        """Within a bucket only arrival counts."""
        return 0.0

    def key_at(self, request: Request, now_s: float) -> float:
        return self.bucket_key(self.bucket(request), request.arrival_s, now_s)
