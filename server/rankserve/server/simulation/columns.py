"""A workload as columns: what the compiled simulation reads."""

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rankserve.server.scheduling.request import Request

Integers = NDArray[np.int64]
Numbers = NDArray[np.float64]


@dataclass(slots=True, frozen=True)
class RequestColumns:
    """Requests in order of arrival, a column an attribute, each of shape [requests].

    The names are those of `scheduling.request.Request`, so that a policy's `key` and `remaining_tokens` work
    on either.

    Attributes:
        arrival_s: seconds from the start, in order.
        prompt_tokens: prompt lengths.
        true_output_tokens: answer lengths, at most `max_tokens`. For oracle policies and the engine only.
        max_tokens: longest answers allowed.
        priority: bands; lower is served first.
        tenant: numbers of the tenants, in order of first appearance.
        score: the ranker's; higher = served sooner.
        expected_tokens: predicted output length, median.
        expected_tokens_p90: its 90th percentile; inf where unknown.
        deadline_or_inf_s: when a request should have ended; inf without a deadline.
    """

    arrival_s: Numbers
    prompt_tokens: Integers
    true_output_tokens: Integers
    max_tokens: Integers
    priority: Integers
    tenant: Integers
    score: Numbers
    expected_tokens: Numbers
    expected_tokens_p90: Numbers
    deadline_or_inf_s: Numbers

    # Nothing is produced yet.
    output_tokens = 0
    ageing = 0.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name).shape != self.arrival_s.shape:
                raise ValueError(f"column {name} has another length than arrival_s")
        if np.any(np.diff(self.arrival_s) < 0):
            raise ValueError("requests must be in order of arrival")
        for name in ("prompt_tokens", "true_output_tokens"):
            if len(self) and getattr(self, name).min() < 1:
                raise ValueError(f"{name} must be at least 1")
        if np.isnan(self.score).any() or np.isnan(self.expected_tokens).any():
            raise ValueError("a score or predicted length is not a number")

    def __len__(self) -> int:
        return len(self.arrival_s)

    def as_request(self) -> Request:
        """These columns where a policy takes a request: its keys are arithmetic that works on both."""
        return cast(Request, self)

    def take(self, which: Integers | slice) -> "RequestColumns":
        """These requests alone."""
        return RequestColumns(**{name: getattr(self, name)[which] for name in self.__slots__})


def columns(
    arrival_s: Numbers,
    prompt_tokens: Integers,
    output_tokens: Integers,
    *,
    max_tokens: Integers | None = None,
    priority: Integers | None = None,
    tenant: Integers | None = None,
    score: Numbers | None = None,
    expected_tokens: Numbers | None = None,
    expected_tokens_p90: Numbers | None = None,
    deadline_s: Numbers | None = None,
) -> RequestColumns:
    """Columns from what is known; the rest as in a `Request` that nothing is known of.

    Raises:
        ValueError: lengths differ, arrivals out of order, lengths below 1, or predictions that are NaN.
    """
    count = len(arrival_s)

    def numbers(values: Numbers | None, default: float) -> Numbers:
        return np.full(count, default) if values is None else np.ascontiguousarray(values, np.float64)

    def integers(values: Integers | None) -> Integers:
        return np.zeros(count, np.int64) if values is None else np.ascontiguousarray(values, np.int64)

    outputs = np.ascontiguousarray(output_tokens, np.int64)
    longest = outputs if max_tokens is None else np.ascontiguousarray(max_tokens, np.int64)
    return RequestColumns(
        arrival_s=np.ascontiguousarray(arrival_s, np.float64),
        prompt_tokens=np.ascontiguousarray(prompt_tokens, np.int64),
        true_output_tokens=np.minimum(outputs, longest),
        max_tokens=longest,
        priority=integers(priority),
        tenant=integers(tenant),
        score=numbers(score, -np.inf),
        expected_tokens=numbers(expected_tokens, np.inf),
        expected_tokens_p90=numbers(expected_tokens_p90, np.inf),
        deadline_or_inf_s=numbers(deadline_s, np.inf),
    )
