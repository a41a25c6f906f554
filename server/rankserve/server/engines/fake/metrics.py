"""What `GET /metrics` tells, in vLLM's words."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rankserve.server.engines.fake.core import Core

_LABELS = ("model_name", "engine")


class _EngineCollector(Collector):
    def __init__(self, core: Core) -> None:
        self._core = core

    def collect(self) -> Iterator[Metric]:
        core, batch = self._core, self._core.batch
        yield self._gauge("num_requests_running", "Requests that run.", len(batch.running))
        yield self._gauge("num_requests_waiting", "Requests that wait to run.", batch.waiting)
        yield self._gauge(
            "kv_cache_usage_perc", "Used part of the KV cache; 1 is all.", batch.kv_used / batch.kv_tokens
        )
        yield self._counter("num_preemptions", "Times that a request had to yield.", batch.preemptions)
        yield self._counter("prompt_tokens", "Prompt tokens of requests.", core.prompt_tokens)
        yield self._counter("generation_tokens", "Tokens produced.", batch.tokens_produced)

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"vllm:{name}", text, labels=_LABELS)
        family.add_metric((self._core.settings.models[0], "0"), value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"vllm:{name}", text, labels=_LABELS)
        family.add_metric((self._core.settings.models[0], "0"), value)
        return family


def metrics_registry(core: Core) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_EngineCollector(core))
    return registry
