"""The caller's span goes along with its calls; who has none pays nothing."""

import subprocess
import sys

import pytest

from rankserve.client._tracing import trace_metadata

trace_sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="needs the extra telemetry")


def test_a_current_span_is_named_as_w3c_says() -> None:
    tracer = trace_sdk.TracerProvider().get_tracer("caller")
    assert trace_metadata() == ()
    with tracer.start_as_current_span("call") as span:
        context = span.get_span_context()
        ((key, value),) = trace_metadata()
        assert key == "traceparent"
        assert value.startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")
    assert trace_metadata() == ()


def test_a_program_without_opentelemetry_does_not_load_it() -> None:
    code = (
        "import sys\n"
        "from rankserve.client._tracing import trace_metadata\n"
        "assert trace_metadata() == ()\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
