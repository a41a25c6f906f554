"""Puts a policy's order into `priority`, for engines that have a priority queue of their own."""

import math
import re
import time
from collections.abc import Callable
from typing import Any

from rankserve.server.gateway.json_bodies import Fields
from rankserve.server.gateway.middleware import PRIORITY_HEADER, Headers, Marker, without
from rankserve.server.gateway.settings import GatewaySettings
from rankserve.server.ranking.ranker import PromptScore
from rankserve.server.scheduling.engine_priority import WORST_BAND, engine_priority
from rankserve.server.scheduling.policies import Policy
from rankserve.server.scheduling.request import Request

# Those whose key never changes while a request waits, which is all that an engine's queue can keep.
STATIC_POLICIES = ("aged_ranking", "ranking", "fcfs")
_INTEGER = re.compile(rb"([+-]?)([0-9]+)")


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
    """Sets `priority`, and vLLM's header for it, which is all that its `/v1/messages` takes.

    Args:
        policy: one of those that `priority_policy` gives.
        lower_first: whether the engine serves small priorities first.
        trust_clients: whether a client's own priority, lower first, is its band; otherwise all are in band 0.
        clock: seconds, which all processes before one engine should agree on: the time of day.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        lower_first: bool = True,
        trust_clients: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(trust_clients=trust_clients)
        self._policy = policy
        self._lower_first = lower_first
        self._clock = clock

    def needs_score(self, body: dict[str, Any]) -> bool:
        return self._policy.needs_scores or self._policy.needs_expected_tokens

    def mark(
        self, body: dict[str, Any], headers: Headers, score: PromptScore | None
    ) -> tuple[Fields, Headers]:
        band = _band(body, headers) if self.trust_clients else 0
        priority = engine_priority(band, self._key(score), lower_first=self._lower_first)
        in_header = (PRIORITY_HEADER, str(priority).encode())
        return {"priority": priority}, [*without(headers, PRIORITY_HEADER), in_header]

    def _key(self, score: PromptScore | None) -> float:
        request = Request(id="", arrival_s=self._clock(), prompt_tokens=0, max_tokens=1)
        not_scored = self._policy.key(request)
        if score is None:
            return not_scored
        request.score = score.score
        if score.expected_tokens_p50 is not None:
            request.expected_tokens = score.expected_tokens_p50
        key = self._policy.key(request)
        return not_scored if math.isnan(key) else key


def _band(body: dict[str, Any], headers: Headers) -> int:
    given: object = body.get("priority")
    for name, value in headers:
        if name.lower() == PRIORITY_HEADER and (number := _INTEGER.fullmatch(value.strip())):
            # Far more digits than matter, and not so many that Python refuses them.
            given = int(number[1] + (number[2].lstrip(b"0")[:32] or b"0"))
    if isinstance(given, bool) or not isinstance(given, int):
        return 0
    return min(max(given, -WORST_BAND), WORST_BAND)
