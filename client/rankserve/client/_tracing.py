"""The caller's span goes along with each call, as W3C `traceparent` metadata."""

import sys

from rankserve.client._channel import Metadata


def trace_metadata() -> Metadata:
    """Names the current OpenTelemetry span; empty where there is none.

    Nothing is imported to find out: a program that has a span has imported OpenTelemetry.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or not trace.get_current_span().get_span_context().is_valid:
        return ()
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return tuple(carrier.items())
