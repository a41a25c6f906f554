"""Traces from the client's span to the server's, through a real process to a collector."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import openai
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from support.messages import PROMPT_MARKER
from support.openai_clients import base_url
from support.server_process import StartServer

from rankserve.client import AsyncSchedulerClient, Request, SchedulerClient

OPTIONS = ("--replay", "--time-scale", "20", "--traces")


class Collector(TraceServiceServicer):
    """Keeps the spans that an exporter sends."""

    def __init__(self) -> None:
        self.exports: list[ExportTraceServiceRequest] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        self._arrived = threading.Event()
        add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def Export(self, request: ExportTraceServiceRequest, context: object) -> ExportTraceServiceResponse:  # noqa: N802
        self.exports.append(request)
        return ExportTraceServiceResponse()

    def spans(self) -> list[Span]:
        return [
            span
            for export in self.exports
            for resource in export.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def stop(self) -> None:
        self._server.stop(None)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
    yield collector
    collector.stop()


async def test_requests_of_every_client_are_children_of_the_callers_span(
    start_server: StartServer, collector: Collector
) -> None:
    server = start_server(*OPTIONS, "--http-port", "0")
    tracer = TracerProvider().get_tracer("caller")
    parents: dict[str, bytes] = {}

    def remember(name: str, span_id: int) -> None:
        parents[name] = span_id.to_bytes(8, "big")

    async with AsyncSchedulerClient(server.address) as client:
        with tracer.start_as_current_span("async") as span:
            remember("async", span.get_span_context().span_id)
            await client.complete(PROMPT_MARKER, id="async", max_tokens=5)
        with tracer.start_as_current_span("stream") as span:
            remember("stream", span.get_span_context().span_id)
            async with client.submit() as stream:
                await stream.send(Request(prompt=PROMPT_MARKER, id="stream", max_tokens=5))
                await stream.done_sending()
                async for _ in stream:
                    pass
        await client.complete(PROMPT_MARKER, id="nobody", max_tokens=5)
        remember("nobody", 0)

    def use_sync_client() -> None:
        with SchedulerClient(server.address) as client, tracer.start_as_current_span("sync") as span:
            remember("sync", span.get_span_context().span_id)
            client.complete(PROMPT_MARKER, id="sync", max_tokens=5)

    await asyncio.to_thread(use_sync_client)

    def use_openai_client() -> None:
        with tracer.start_as_current_span("openai") as span:
            remember("openai", span.get_span_context().span_id)
            headers: dict[str, str] = {"X-Request-Id": "openai"}
            TraceContextTextMapPropagator().inject(headers)
            with openai.OpenAI(base_url=base_url(server), api_key="none", max_retries=0) as api:
                model = api.models.list().data[0].id
                api.completions.create(model=model, prompt=PROMPT_MARKER, max_tokens=5, extra_headers=headers)

    await asyncio.to_thread(use_openai_client)
    assert await asyncio.to_thread(server.stop) == 0

    spans = collector.spans()
    by_id = {
        attribute.value.string_value: span
        for span in spans
        for attribute in span.attributes
        if attribute.key == "gen_ai.response.id"
    }
    assert by_id.keys() == parents.keys()
    for name, parent in parents.items():
        assert by_id[name].parent_span_id == (parent if name != "nobody" else b""), name
        phases = {child.name for child in spans if child.parent_span_id == by_id[name].span_id}
        assert {"queue", "prefill"} <= phases, name
    assert PROMPT_MARKER not in str(collector.exports)


async def test_a_collector_that_is_gone_costs_no_request_and_holds_up_no_end(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    server = start_server(*OPTIONS)
    async with AsyncSchedulerClient(server.address) as client:
        completion = await client.complete(PROMPT_MARKER, max_tokens=5)
        assert completion.output_tokens > 0
    assert await asyncio.to_thread(server.stop) == 0
