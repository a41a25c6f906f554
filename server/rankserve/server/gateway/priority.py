"""Puts a policy's order into `priority`, for engines that have a priority queue of their own."""

import time
from collections.abc import Callable
from typing import Any

from rankserve.server.gateway.middleware import Headers, Marker
from rankserve.server.gateway.settings import GatewaySettings
from rankserve.server.ranking.ranker import PromptScore
from rankserve.server.scheduling.engine_priority import WORST_BAND, engine_priority
from rankserve.server.scheduling.policies import Policy
from rankserve.server.scheduling.request import Request

# Those whose key never changes while a request waits, which is all that an engine's queue can keep.
STATIC_POLICIES = ("aged_ranking", "ranking", "fcfs")
# vLLM lets this header go before what the body says.
_PRIORITY_HEADER = b"x-vllm-priority"


def priority_policy(settings: GatewaySettings) -> Policy:
    """Raises ValueError for policies whose order is not one number, fixed when a request comes."""
    name = settings.policy or STATIC_POLICIES[0]
    if name not in STATIC_POLICIES:
        raise ValueError(
            f"policy {name!r} cannot be told to an engine as a priority; these can:"
            f" {', '.join(STATIC_POLICIES)}"
        )
    return settings.policy_named(name)


class PriorityMarker(Marker):
    """Sets `priority`.

    Args:
        policy: one of those that `priority_policy` gives.
        lower_first: whether the engine serves small priorities first.
        trust_clients: whether a client's own priority, lower first, is its band; otherwise all are in band 0.
        clock: seconds since a moment that all processes before one engine share.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        lower_first: bool = True,
        trust_clients: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._lower_first = lower_first
        self._trust_clients = trust_clients
        self._clock = clock

    def needs_score(self, body: dict[str, Any]) -> bool:
        return self._policy.needs_scores or self._policy.needs_expected_tokens

    def mark(self, body: dict[str, Any], headers: Headers, score: PromptScore | None) -> Headers:
        band = self._band(body, headers) if self._trust_clients else 0
        request = Request(id="", arrival_s=self._clock(), prompt_tokens=0, max_tokens=1, priority=band)
        if score is not None:
            request.score = score.score
            if score.expected_tokens_p50 is not None:
                request.expected_tokens = score.expected_tokens_p50
        body["priority"] = engine_priority(band, self._policy.key(request), lower_first=self._lower_first)
        return [(name, value) for name, value in headers if name.lower() != _PRIORITY_HEADER]

    def _band(self, body: dict[str, Any], headers: Headers) -> int:
        given: object = body.get("priority")
        for name, value in headers:
            if name.lower() == _PRIORITY_HEADER and value.strip().lstrip(b"-").isdigit():
                given = int(value[:32])
        if isinstance(given, bool) or not isinstance(given, int):
            return 0
        return min(max(given, -WORST_BAND), WORST_BAND)
