"""Metrics, probes and the live page of one server, from wiring to the end."""

from collections.abc import Sequence

from starlette.applications import Starlette

from rankserve.server.metrics.registry import Metrics
from rankserve.server.metrics.state_collector import STATES
from rankserve.server.observer import Observer
from rankserve.server.operations.application import operations_application
from rankserve.server.operations.guard import Guard
from rankserve.server.operations.live_feed import LiveFeed
from rankserve.server.operations.live_view import LiveView, RecentLatencies
from rankserve.server.ranking.ranker import Ranker
from rankserve.server.rpc.stats import StatsSource
from rankserve.server.scheduling.by_model import AnyScheduler


class Operations:
    """Observes requests from the start; its application is served once the server is.

    Args:
        longest: the model's longest prompt plus answer in tokens.

    Attributes:
        observers: to be told of all requests.
    """

    def __init__(self, longest: int) -> None:
        self._metrics = Metrics(longest)
        self._latencies = RecentLatencies()
        self.observers: Sequence[Observer] = (self._metrics.requests, self._latencies)
        self._feed: LiveFeed | None = None

    def application(
        self,
        guard: Guard,
        stats: StatsSource,
        scheduler: AnyScheduler,
        ranker: Ranker,
        *,
        metrics_open: bool,
    ) -> Starlette:
        """What answers operators."""
        self._metrics.watch(stats.read, ranker)
        self._feed = LiveFeed(LiveView(stats.read, scheduler, self._latencies))
        return operations_application(
            self._metrics,
            self._feed,
            guard,
            lambda: STATES.get(stats.read().state, ""),
            metrics_open=metrics_open,
        )

    def start(self) -> None:
        """Feeds the live page from now on."""
        if self._feed is not None:
            self._feed.start()

    async def aclose(self) -> None:
        """Ends the streams of those who watch the page."""
        if self._feed is not None:
            await self._feed.aclose()
