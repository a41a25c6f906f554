"""Metrics, probes and the live page of one server, from wiring to the end."""

from collections.abc import Sequence

from rankserve.server.http_server import HttpServer
from rankserve.server.metrics.registry import Metrics
from rankserve.server.metrics.state_collector import STATES
from rankserve.server.observer import Observer
from rankserve.server.operations.application import operations_application
from rankserve.server.operations.guard import Guard
from rankserve.server.operations.live_feed import LiveFeed
from rankserve.server.operations.live_view import LiveView, RecentLatencies
from rankserve.server.ranking.ranker import Ranker
from rankserve.server.rpc.stats import StatsSource
from rankserve.server.scheduling.scheduler import Scheduler


class Operations:
    """Observes requests from the start; listens, and then serves.

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
        self._server: HttpServer | None = None

    def listen(
        self,
        host: str,
        port: int,
        guard: Guard,
        stats: StatsSource,
        scheduler: Scheduler,
        ranker: Ranker,
        *,
        metrics_open: bool,
    ) -> int:
        """Binds the address, without answering yet; returns the port. Raises OSError if it cannot."""
        self._metrics.watch(stats.read, ranker)
        self._feed = LiveFeed(LiveView(stats.read, scheduler, self._latencies))
        application = operations_application(
            self._metrics,
            self._feed,
            guard,
            lambda: STATES.get(stats.read().state, ""),
            metrics_open=metrics_open,
        )
        self._server = HttpServer(application, host, port)
        return self._server.port

    def start(self) -> None:
        """Answers from now on."""
        if self._feed is not None and self._server is not None:
            self._feed.start()
            self._server.start()

    async def aclose(self) -> None:
        """Ends the streams and the listener."""
        if self._feed is not None:
            await self._feed.aclose()
        if self._server is not None:
            await self._server.aclose()
