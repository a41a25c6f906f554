"""A trace of each request with OpenTelemetry, of which this module needs the SDK: the extra `telemetry`.

Attributes follow the semantic conventions for generative AI where those have the thing, `rankserve.*` else.
Nothing of a prompt or an answer is in a span.
"""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from threading import Thread
from typing import Any

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from rankserve.server.errors import RequestCancelled, RequestError
from rankserve.server.events import Failed, Finished
from rankserve.server.requests import LiveRequest
from rankserve.server.rpc.errors import reason_of

_SHUTDOWN_S = 3.0
_propagator = TraceContextTextMapPropagator()


def exporting_provider() -> TracerProvider:
    """A provider that exports over OTLP; endpoint, sampler and the rest as the `OTEL_*` variables say."""
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    provider = TracerProvider(
        resource=Resource.create({} if named else {"service.name": "rankserve"}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class RequestTraces:
    """One span a request, from acceptance to end (an observer).

    It is a child of the span that the caller sent along, and has a child for each phase: `queue` until the
    first start, `prefill` until the first token, `decode` until the last one.

    Args:
        provider: makes the spans; closed by `close`.
        engine: what answers, for `gen_ai.request.model`.
    """

    def __init__(self, provider: TracerProvider, engine: str) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("rankserve")
        self._engine = engine
        self._spans: dict[LiveRequest, Span] = {}

    def accepted(self, live: LiveRequest) -> None:
        span = self._tracer.start_span(
            f"text_completion {self._engine}", kind=SpanKind.SERVER, start_time=_ns(live.accept_time)
        )
        if span.is_recording():
            span.set_attributes(self._asked(live))
            self._spans[live] = span

    def refused(self, error: RequestError) -> None:
        # The caller's own span shows it; one of ours would cost most when the server is busiest.
        ...

    def scored(self, live: LiveRequest, duration_s: float) -> None:
        span = self._spans.get(live)
        if span is not None:
            span.add_event("scored", {"rankserve.score.duration_s": duration_s, **_score(live)})

    def started(self, live: LiveRequest) -> None:
        span = self._spans.get(live)
        if span is not None:
            span.add_event("started", {"rankserve.preemptions": live.request.preemptions})

    def ended(self, live: LiveRequest) -> None:
        span = self._spans.pop(live, None)
        if span is None:
            return
        self._add_phases(span, live)
        span.set_attributes(_outcome(live))
        if isinstance(live.outcome, Failed) and not isinstance(live.outcome.error, RequestCancelled):
            span.set_status(StatusCode.ERROR, reason_of(live.outcome.error))
        span.end(_ns(_unix_s(live, live.ended_s)))

    def close(self) -> None:
        """Exports what is left, for a few seconds at most: the collector may be gone. Blocks."""
        for span in self._spans.values():
            span.end()
        self._spans.clear()
        # The SDK itself takes no limit here, and tries for as long as an export may take.
        closing = Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_SHUTDOWN_S)

    def _asked(self, live: LiveRequest) -> dict[str, AttributeValue]:
        request, sampling = live.request, live.spec.sampling
        attributes: dict[str, AttributeValue | None] = {
            "gen_ai.operation.name": "text_completion",
            "gen_ai.provider.name": "rankserve",
            "gen_ai.request.model": self._engine,
            "gen_ai.request.max_tokens": request.max_tokens,
            "gen_ai.request.temperature": sampling.temperature,
            "gen_ai.request.top_p": sampling.top_p,
            "gen_ai.request.seed": sampling.seed,
            "gen_ai.response.id": request.id,
            "rankserve.priority": request.priority,
            "rankserve.tenant": request.tenant or None,
        }
        return {name: value for name, value in attributes.items() if value is not None}

    def _add_phases(self, span: Span, live: LiveRequest) -> None:
        parent = trace.set_span_in_context(span)
        moments = [live.request.arrival_s, live.scheduled_s, live.first_token_s, live.last_token_s]
        for name, begin_s, end_s in zip(("queue", "prefill", "decode"), moments, moments[1:], strict=False):
            if begin_s is None:
                return
            # A request that never got further was in this phase when it ended.
            until_s = live.ended_s if end_s is None else end_s
            phase = self._tracer.start_span(name, parent, start_time=_ns(_unix_s(live, begin_s)))
            phase.end(_ns(_unix_s(live, until_s)))
            if end_s is None:
                return


def _outcome(live: LiveRequest) -> dict[str, AttributeValue]:
    request, outcome = live.request, live.outcome
    attributes: dict[str, AttributeValue] = {
        "gen_ai.usage.input_tokens": request.prompt_tokens,
        "gen_ai.usage.output_tokens": request.output_tokens,
        "rankserve.preemptions": request.preemptions,
        "rankserve.promoted": request.promotions > 0,
        **_score(live),
    }
    if live.first_token_s is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = live.first_token_s - request.arrival_s
    if isinstance(outcome, Finished):
        attributes["gen_ai.response.finish_reasons"] = [outcome.finish_reason]
        attributes["rankserve.policy"] = outcome.policy
    elif isinstance(outcome, Failed):
        attributes["error.type"] = reason_of(outcome.error)
    return attributes


def _score(live: LiveRequest) -> dict[str, AttributeValue]:
    return {"rankserve.score": live.score, "rankserve.ranker_version": live.ranker_version}


def _unix_s(live: LiveRequest, moment_s: float) -> float:
    return live.accept_time + moment_s - live.request.arrival_s


def _ns(unix_s: float) -> int:
    return int(unix_s * 1e9)


class TraceContextInterceptor(grpc.aio.ServerInterceptor):
    """Makes requests of a call children of the span in its W3C `traceparent` metadata.

    A Submit stream has one such span for all its requests: the one that was current when it was opened.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        carrier = {
            str(key): value
            for key, value in handler_call_details.invocation_metadata or ()
            if key in _propagator.fields and isinstance(value, str)
        }
        # Each call is served in a task, and so in a context, of its own.
        otel_context.attach(_propagator.extract(carrier))
        return await continuation(handler_call_details)


class TraceContextMiddleware:
    """The same for an ASGI application: its requests are children of the span in the `traceparent` header."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        carrier = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope.get("headers", ())
            if name.decode("latin-1").lower() in _propagator.fields
        }
        token = otel_context.attach(_propagator.extract(carrier))
        try:
            await self._app(scope, receive, send)
        finally:
            otel_context.detach(token)


class Tracing:
    """All that a server needs to trace its requests.

    Args:
        engine: what answers.

    Attributes:
        requests: the observer that makes the spans.
        interceptor, middleware: where gRPC and HTTP calls say whose children they are.
    """

    def __init__(self, engine: str) -> None:
        self.requests = RequestTraces(exporting_provider(), engine)
        self.interceptor = TraceContextInterceptor()
        self.middleware = TraceContextMiddleware

    def close(self) -> None:
        """Exports what is left, for a few seconds at most. Blocks."""
        self.requests.close()
