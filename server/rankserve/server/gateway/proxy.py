"""The proxy: sets `priority` in requests, forwards everything, and tells operators how it does."""

import asyncio
import json
import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import AfterValidator, Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from rankserve.server.access.library_logs import keep_values_out_of_library_logs
from rankserve.server.gateway.bodies import Bodies
from rankserve.server.gateway.forwarder import Forwarder, check_upstream
from rankserve.server.gateway.middleware import ScoringMiddleware
from rankserve.server.gateway.priority import PriorityMarker, priority_policy
from rankserve.server.gateway.scorer import PromptScorer
from rankserve.server.gateway.settings import GatewaySettings
from rankserve.server.http_server import HttpServer

log = structlog.get_logger(__name__)

# Everything below it is the proxy's own; /health and /metrics are the engine's.
OWN_PATH = "/rankserve"
# What uvicorn says where the engine broke off.
_UNENDED = "ASGI callable returned without completing response."


class ProxySettings(GatewaySettings):
    """Attributes, beside those of `GatewaySettings`:
    upstream: address of the engine's API; a /v1 at its end is left out.
    host, port: where to listen.
    engine_priority: whether the engine serves small priorities first (vLLM) or large ones (SGLang).
    connect_timeout_s: to reach the engine.
    read_timeout_s: longest silence of the engine.
    drain_timeout_s: how long running requests may go on after SIGTERM.
    """

    upstream: Annotated[str, AfterValidator(check_upstream)]
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8100
    engine_priority: Literal["lower-first", "higher-first"] = "lower-first"
    connect_timeout_s: Annotated[float, Field(gt=0)] = 5.0
    read_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    drain_timeout_s: Annotated[float, Field(ge=0)] = 30.0


@dataclass(slots=True, frozen=True)
class ProxyListening:
    """Attributes:
    address: host:port.
    policy: whose order it sets.
    ranker_version: "name/3"; "" if the policy needs none.
    """

    address: str
    policy: str
    ranker_version: str


class Proxy:
    """The application and what is behind it.

    Raises:
        ValueError: a policy that cannot be told to an engine.
    """

    def __init__(self, settings: ProxySettings) -> None:
        self.policy = priority_policy(settings)
        bodies = Bodies(settings.max_body_bytes, settings.max_total_body_bytes, settings.body_timeout_s)
        self.scorer = PromptScorer(settings, self.policy)
        self._forwarder = Forwarder(
            settings.upstream,
            bodies,
            connect_timeout_s=settings.connect_timeout_s,
            read_timeout_s=settings.read_timeout_s,
        )
        marker = PriorityMarker(
            self.policy,
            lower_first=settings.engine_priority == "lower-first",
            trust_clients=settings.trust_clients,
        )
        self._scoring = ScoringMiddleware(self._forwarder, self.scorer, marker, bodies)
        self._registry = CollectorRegistry()
        self._registry.register(_Figures(self.scorer, self._forwarder))
        ProcessCollector(registry=self._registry)
        self._own = Starlette(
            routes=[
                Mount(OWN_PATH, routes=[Route("/health", self._health), Route("/metrics", self._metrics)])
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        own = scope["path"] == OWN_PATH or scope["path"].startswith(OWN_PATH + "/")
        await (self._own if own else self._scoring)(scope, receive, send)

    async def start(self) -> None:
        """Raises RankerVersionError."""
        await self.scorer.start()

    async def aclose(self) -> None:
        await self._forwarder.aclose()
        await self.scorer.aclose()

    async def _health(self, request: Request) -> Response:
        state = {
            "status": "serving",
            "policy": self.policy.name,
            "ranker_version": self.scorer.reference,
            "open_requests": self._forwarder.open,
        }
        return Response(json.dumps(state), media_type="application/json")

    async def _metrics(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"content-type": content_type})


class _Figures(Collector):
    def __init__(self, scorer: PromptScorer, forwarder: Forwarder) -> None:
        self._scorer = scorer
        self._forwarder = forwarder

    def collect(self) -> Iterator[Metric]:
        counters = {
            "scored": ("Requests that the ranker scored.", self._scorer.scored_total),
            "neutral": ("Requests that got the neutral score.", self._scorer.neutral_total),
            "unreachable": (
                "Requests that the engine could not be asked, or did not answer.",
                self._forwarder.unreachable_total,
            ),
        }
        for name, (meaning, value) in counters.items():
            yield CounterMetricFamily(f"rankserve_proxy_{name}", meaning, value)
        yield GaugeMetricFamily(
            "rankserve_proxy_open_requests", "Requests that are being forwarded.", self._forwarder.open
        )


def is_news(record: logging.LogRecord) -> bool:
    """Whether uvicorn says what is not known: we say why an answer was cut off, it that a drain ran out."""
    error = record.exc_info[1] if record.exc_info else None
    return record.msg != _UNENDED and not isinstance(error, asyncio.CancelledError)


async def serve_proxy(settings: ProxySettings, on_listening: Callable[[ProxyListening], None]) -> None:
    """Serves until SIGTERM or SIGINT; then takes no more connections and lets requests end.

    Raises:
        ValueError: settings that make no sense, a ranker version that cannot be used.
        OSError: the address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    keep_values_out_of_library_logs(loop)
    # A line a request at INFO, with its address and so whatever a client wrote there.
    for library in ("httpx2", "httpcore2"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(is_news)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    proxy = Proxy(settings)
    try:
        await proxy.start()
        server = HttpServer(proxy, settings.host, settings.port)
        # The engine's answers have their own date.
        server.config.date_header = False
        server.config.timeout_graceful_shutdown = max(1, round(settings.drain_timeout_s))
        server.start()
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        on_listening(ProxyListening(f"{host}:{server.port}", proxy.policy.name, proxy.scorer.reference))
        await stop.wait()
        log.info("draining")
        await server.aclose()
    finally:
        await proxy.aclose()
