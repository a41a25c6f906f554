"""What is written into requests, by score and time."""

import math
import time

import pytest

from rankserve.server.gateway.priority import PriorityMarker, priority_policy
from rankserve.server.gateway.settings import GatewaySettings
from rankserve.server.ranking.ranker import PromptScore
from rankserve.server.scheduling.engine_priority import engine_priority
from rankserve.server.scheduling.policies import AgedRanking, make_policy


def priority(marker: PriorityMarker, score: float = 0.0, p50: float | None = None) -> int:
    fields, headers = marker.mark({}, [], PromptScore(score, "toy/1", p50, None))
    assert headers == [(b"x-vllm-priority", str(fields["priority"]).encode())]
    number: int = fields["priority"]
    return number


@pytest.mark.parametrize("ageing_tokens_per_s", [1.0, 100.0])
def test_predictions_stay_apart_however_late_it_is(ageing_tokens_per_s: float) -> None:
    marker = PriorityMarker(AgedRanking(ageing_tokens_per_s), clock=lambda: 2e9)
    lengths = [10.0, 30.0, 80.0, 180.0, 300.0, 460.0, 650.0, 850.0]
    numbers = [priority(marker, p50=length) for length in lengths]
    assert numbers == sorted(set(numbers))


def test_the_time_of_day_counts_as_several_proxies_agree_on_it() -> None:
    before_s = time.time()
    now = priority(PriorityMarker(make_policy("fcfs")))
    after_s = time.time()
    assert engine_priority(0, before_s, lower_first=True) <= now
    assert now <= engine_priority(0, after_s, lower_first=True)


@pytest.mark.parametrize("name", ["aged_ranking", "ranking"])
def test_a_score_that_is_not_a_number_counts_as_none(name: str) -> None:
    marker = PriorityMarker(priority_policy(GatewaySettings(policy=name)), clock=lambda: 1.0)
    without, _ = marker.mark({}, [], None)
    assert priority(marker, score=math.nan, p50=math.nan) == without["priority"]
