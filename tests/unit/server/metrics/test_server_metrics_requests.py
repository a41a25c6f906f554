"""What is counted of requests, by hand-computed values."""

import pytest
from prometheus_client import CollectorRegistry
from support.ended_requests import fail, finish, live_request

from rankserve.server.errors import DeadlinePassed, QueueFull
from rankserve.server.metrics.buckets import tokens
from rankserve.server.metrics.request_metrics import RequestMetrics


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> RequestMetrics:
    return RequestMetrics(registry, longest=4096)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(f"rankserve_{name}", labels)
    assert found is not None, name
    return found


def test_a_finished_request_is_in_every_histogram(
    registry: CollectorRegistry, metrics: RequestMetrics
) -> None:
    metrics.ended(finish(live_request(), output_tokens=11))
    expected = {
        "time_to_first_token_seconds": 3.0,
        "e2e_request_latency_seconds": 8.0,
        "request_time_per_output_token_seconds": 0.5,
        "request_normalised_latency_seconds": 8 / 11,
        "request_max_waiting_time_seconds": 4.0,
        "request_prompt_tokens": 16.0,
        "request_generation_tokens": 11.0,
    }
    for name, total in expected.items():
        assert value(registry, f"{name}_count") == 1, name
        assert value(registry, f"{name}_sum") == pytest.approx(total), name
    assert value(registry, "request_success_total", finished_reason="stop") == 1


def test_an_answer_of_one_token_has_no_time_between_tokens(
    registry: CollectorRegistry, metrics: RequestMetrics
) -> None:
    metrics.ended(finish(live_request(), output_tokens=1, reason="length"))
    assert value(registry, "request_time_per_output_token_seconds_count") == 0
    assert value(registry, "request_success_total", finished_reason="length") == 1


def test_a_request_that_fails_counts_by_reason_and_not_as_latency(
    registry: CollectorRegistry, metrics: RequestMetrics
) -> None:
    metrics.ended(fail(live_request(), DeadlinePassed(10)))
    metrics.refused(QueueFull("limit", 1.0))
    assert value(registry, "request_failure_total", reason="DEADLINE_PASSED") == 1
    assert value(registry, "requests_refused_total", reason="QUEUE_FULL") == 1
    assert value(registry, "e2e_request_latency_seconds_count") == 0


def test_queue_time_is_that_of_the_first_start(registry: CollectorRegistry, metrics: RequestMetrics) -> None:
    live = live_request(promotions=1)
    live.scheduled_s = 102.5
    metrics.started(live)
    live.request.preemptions = 1
    metrics.started(live)
    for name in ("request_queue_time_seconds", "promoted_request_queue_time_seconds"):
        assert value(registry, f"{name}_count") == 1
        assert value(registry, f"{name}_sum") == 2.5
    assert value(registry, "prompt_tokens_total") == 16


def test_buckets_of_lengths_are_those_of_vllm() -> None:
    assert tokens(100) == [1, 2, 5, 10, 20, 50, 100]
    assert tokens(4096)[-1] == 2000
