"""All metrics of one server, in a registry of their own."""

from collections.abc import Callable
from importlib.metadata import version

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from rankserve.server.metrics.request_metrics import PREFIX, RequestMetrics
from rankserve.server.metrics.state_collector import StateCollector
from rankserve.server.ranking.ranker import Ranker
from rankserve.v1 import scheduler_pb2 as pb


class Metrics:
    """What `/metrics` shows.

    Args:
        longest: the model's longest prompt plus answer in tokens.

    Attributes:
        requests: the observer that counts requests.
    """

    def __init__(self, longest: int) -> None:
        self._registry = CollectorRegistry()
        self.requests = RequestMetrics(self._registry, longest)
        self._registry.register(_Build())
        ProcessCollector(registry=self._registry)

    def watch(self, stats: Callable[[], pb.GetStatsResponse], ranker: Ranker) -> None:
        """Shows the state of a server from now on."""
        self._registry.register(StateCollector(stats, ranker))

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """The metrics in a format of this Accept header, Prometheus text or OpenMetrics; its type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Build(Collector):
    def collect(self) -> list[Metric]:
        return [
            InfoMetricFamily(
                PREFIX + "build", "The server's release.", value={"version": version("rankserve")}
            )
        ]
