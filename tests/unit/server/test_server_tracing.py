"""Spans of requests: which, how long, whose children, and what is not in them."""

from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from support.ended_requests import ACCEPT_TIME, fail, finish, live_request

from rankserve.server.errors import DeadlinePassed, RequestCancelled
from rankserve.server.tracing import (
    RequestTraces,
    TraceContextInterceptor,
    TraceContextMiddleware,
    exporting_provider,
)

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


class Setup:
    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(**options)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.traces = RequestTraces(provider, "simulated/a100")

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}


@pytest.fixture
def setup() -> Setup:
    return Setup()


def at_s(moment_ns: int | None) -> float:
    assert moment_ns is not None
    return round(moment_ns / 1e9 - ACCEPT_TIME, 6)


def between_s(span: ReadableSpan) -> tuple[float, float]:
    return at_s(span.start_time), at_s(span.end_time)


def test_a_request_is_a_span_with_its_phases_as_children(setup: Setup) -> None:
    live = live_request(score=1.5, tenant="team")
    setup.traces.accepted(live)
    live.ranker_version = "toy/1"
    setup.traces.scored(live, 0.01)
    setup.traces.started(live)
    setup.traces.ended(finish(live, output_tokens=11))
    spans = setup.spans()
    assert list(spans) == ["queue", "prefill", "decode", "text_completion simulated/a100"]
    whole = spans["text_completion simulated/a100"]
    assert whole.kind is SpanKind.SERVER
    assert between_s(whole) == (0, 8)
    assert [between_s(spans[name]) for name in ("queue", "prefill", "decode")] == [(0, 2), (2, 3), (3, 8)]
    assert all(spans[name].parent == whole.context for name in ("queue", "prefill", "decode"))
    assert [event.name for event in whole.events] == ["scored", "started"]
    attributes = whole.attributes or {}
    assert attributes["gen_ai.operation.name"] == "text_completion"
    assert attributes["gen_ai.request.model"] == "simulated/a100"
    assert attributes["gen_ai.request.max_tokens"] == 100
    assert attributes["gen_ai.usage.input_tokens"] == 16
    assert attributes["gen_ai.usage.output_tokens"] == 11
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert attributes["gen_ai.response.id"] == "r"
    assert attributes["rankserve.score"] == 1.5
    assert attributes["rankserve.ranker_version"] == "toy/1"
    assert attributes["rankserve.tenant"] == "team"
    assert whole.status.status_code is StatusCode.UNSET


def test_no_prompt_is_in_a_span(setup: Setup) -> None:
    live = live_request()
    setup.traces.accepted(live)
    setup.traces.ended(finish(live))
    assert not [span for span in setup.spans().values() if "heliotrope" in span.to_json()]


def test_a_request_that_never_started_has_one_phase_and_an_error(setup: Setup) -> None:
    live = live_request()
    setup.traces.accepted(live)
    setup.traces.ended(fail(live, DeadlinePassed(10)))
    spans = setup.spans()
    assert list(spans) == ["queue", "text_completion simulated/a100"]
    assert between_s(spans["queue"]) == (0, 5)
    whole = spans["text_completion simulated/a100"]
    assert whole.status.status_code is StatusCode.ERROR
    assert (whole.attributes or {})["error.type"] == "DEADLINE_PASSED"


def test_a_cancelled_request_is_no_error(setup: Setup) -> None:
    live = live_request()
    setup.traces.accepted(live)
    setup.traces.ended(fail(live, RequestCancelled()))
    whole = setup.spans()["text_completion simulated/a100"]
    assert whole.status.status_code is StatusCode.UNSET
    assert (whole.attributes or {})["error.type"] == "CANCELLED"


def test_what_is_not_sampled_is_not_kept() -> None:
    setup = Setup(sampler=ALWAYS_OFF)
    live = live_request()
    setup.traces.accepted(live)
    assert not setup.traces._spans
    setup.traces.ended(finish(live))
    assert not setup.spans()


def test_requests_left_to_a_journal_end_their_spans_with_the_process(setup: Setup) -> None:
    setup.traces.accepted(live_request())
    setup.traces.close()
    assert list(setup.spans()) == ["text_completion simulated/a100"]


class Call:
    method = "/rankserve.v1.SchedulerService/Generate"

    def __init__(self, **metadata: str | bytes) -> None:
        self.invocation_metadata = tuple(metadata.items())


async def test_a_call_carries_the_span_of_its_caller(setup: Setup) -> None:
    live = live_request()

    async def handler(details: object) -> None:
        setup.traces.accepted(live)

    await TraceContextInterceptor().intercept_service(handler, Call(traceparent=TRACEPARENT))
    setup.traces.ended(finish(live))
    parent = setup.spans()["text_completion simulated/a100"].parent
    assert parent is not None
    assert f"{parent.trace_id:032x}" == TRACE_ID
    assert f"{parent.span_id:016x}" == SPAN_ID


@pytest.mark.parametrize(
    "traceparent", ["", "rubbish", "00-0-0-01", b"\xff\xfe", "00-" + "0" * 32 + f"-{SPAN_ID}-01"]
)
async def test_a_malformed_one_is_as_none(setup: Setup, traceparent: str | bytes) -> None:
    live = live_request()

    async def handler(details: object) -> None:
        setup.traces.accepted(live)

    await TraceContextInterceptor().intercept_service(handler, Call(traceparent=traceparent))
    setup.traces.ended(finish(live))
    assert setup.spans()["text_completion simulated/a100"].parent is None


async def test_an_http_request_carries_it_in_a_header_and_leaves_nothing_behind() -> None:
    seen = []

    async def app(scope: object, receive: object, send: object) -> None:
        seen.append(get_current_span().get_span_context().span_id)

    token = otel_context.attach(otel_context.Context())
    scope = {"type": "http", "headers": [(b"Traceparent", TRACEPARENT.encode())]}
    await TraceContextMiddleware(app)(scope, None, None)
    assert seen == [int(SPAN_ID, 16)]
    assert get_current_span().get_span_context().span_id == 0
    otel_context.detach(token)


@pytest.mark.parametrize(("variables", "name"), [({}, "rankserve"), ({"OTEL_SERVICE_NAME": "ours"}, "ours")])
def test_the_service_is_named_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str
) -> None:
    for variable, text in variables.items():
        monkeypatch.setenv(variable, text)
    provider = exporting_provider()
    assert provider.resource.attributes["service.name"] == name
    provider.shutdown()
