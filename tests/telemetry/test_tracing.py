import asyncio
from random import Random

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from gateway.scheduling.decisions import RefusalReason
from gateway.telemetry.request_record import Outcome
from gateway.telemetry.trace_export import export_traces
from gateway.telemetry.tracing import RequestTracing
from tests.telemetry.record_builder import make_record

NOON = 1_800_000_000.0
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = [(b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())]
UNSAMPLED = [(b"traceparent", f"00-{TRACE}-{SPAN}-00".encode())]


class Traced:
    """Tracing that keeps its spans; every request takes 2.4 s and ends at noon."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracing = RequestTracing(
            processor=SimpleSpanProcessor(self.exporter),
            sampler=sampler or ParentBased(ALWAYS_ON),
            resource=Resource({"service.name": "test"}),
            rng=Random(1),
            wall_clock=lambda: NOON,
        )

    def end(self, headers: list[tuple[bytes, bytes]] | None = None, **changed: object) -> None:
        trace = self.tracing.begin(headers or [])
        timed: dict[str, object] = {"arrived_s": 0.01, "dispatched_s": 0.1102, "trace": trace}
        self.tracing.request_ended(make_record(**(timed | changed)))

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


def seconds(span: ReadableSpan) -> tuple[float, float]:
    """Start and end, from the start of the request."""
    assert span.start_time is not None
    assert span.end_time is not None
    started = NOON - 2.4
    return (span.start_time / 1e9 - started, span.end_time / 1e9 - started)


def test_a_request_has_a_span_for_each_part_of_its_life() -> None:
    traced = Traced()
    traced.end()
    spans = traced.spans
    assert list(spans) == ["pick", "queue", "upstream", "stream", "chat chat"]
    root = spans["chat chat"]
    assert seconds(root) == pytest.approx((0.0, 2.4), abs=1e-5)
    assert seconds(spans["pick"]) == pytest.approx((0.01, 0.0102), abs=1e-5)
    assert seconds(spans["queue"]) == pytest.approx((0.0102, 0.1102), abs=1e-5)
    assert seconds(spans["upstream"]) == pytest.approx((0.1102, 0.4), abs=1e-5)
    assert seconds(spans["stream"]) == pytest.approx((0.4, 2.4), abs=1e-5)
    for name in ("pick", "queue", "upstream", "stream"):
        assert spans[name].parent == root.context
    assert (root.kind, spans["upstream"].kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert root.status.status_code is StatusCode.UNSET


def test_attributes_follow_the_conventions() -> None:
    traced = Traced()
    traced.end()
    told = dict(traced.spans["chat chat"].attributes or {})
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == "chat"
    assert told["gen_ai.response.model"] == "base"
    assert told["gen_ai.usage.input_tokens"] == 100
    assert told["gen_ai.usage.output_tokens"] == 21
    assert told["gen_ai.response.time_to_first_chunk"] == 0.4
    assert told["http.response.status_code"] == 200
    assert "error.type" not in told
    upstream = dict(traced.spans["upstream"].attributes or {})
    assert upstream["server.address"] == "a"
    assert upstream["llm_gateway.forecast.ttft_s"] == 0.33


def test_the_callers_trace_goes_on() -> None:
    traced = Traced()
    traced.end(CALLER)
    root = traced.spans["chat chat"]
    assert root.context is not None
    assert f"{root.context.trace_id:032x}" == TRACE
    assert root.parent is not None
    assert (f"{root.parent.span_id:016x}", root.parent.is_remote) == (SPAN, True)


def test_the_server_hangs_below_the_exchange_with_it() -> None:
    traced = Traced()
    trace = traced.tracing.begin(CALLER)
    traced.tracing.request_ended(make_record(arrived_s=0.0, dispatched_s=0.1, trace=trace))
    context = traced.spans["upstream"].context
    assert context is not None
    assert f"{context.span_id:016x}".encode() in trace.header[1]


def test_a_trace_that_the_caller_does_not_record_is_passed_on_unrecorded() -> None:
    traced = Traced()
    traced.end(UNSAMPLED)
    assert traced.spans == {}
    assert traced.tracing.begin(UNSAMPLED).header[1].endswith(b"-00")


def test_the_sampler_decides_without_a_caller() -> None:
    traced = Traced(ParentBased(TraceIdRatioBased(0.0)))
    traced.end()
    assert traced.spans == {}
    traced.end(CALLER)
    assert traced.spans


def test_a_refused_request_has_waited_only_and_tells_why() -> None:
    traced = Traced()
    traced.end(
        outcome=Outcome.EXPIRED,
        status=503,
        reason=RefusalReason.QUEUE_TIMEOUT,
        ttft_s=None,
        dispatched_s=None,
        attempts=0,
    )
    spans = traced.spans
    assert list(spans) == ["queue", "chat chat"]
    root = spans["chat chat"]
    assert (root.status.status_code, root.status.description) == (
        StatusCode.ERROR,
        "queue_timeout",
    )
    assert (root.attributes or {})["error.type"] == "queue_timeout"


def test_a_request_that_was_never_read_has_one_span() -> None:
    traced = Traced()
    traced.end(outcome=Outcome.CLIENT_ERROR, status=413, arrived_s=None, dispatched_s=None)
    assert list(traced.spans) == ["chat chat"]


def test_an_answer_that_is_not_streamed_has_no_stream() -> None:
    traced = Traced()
    traced.end(ttft_s=None, streamed=False)
    assert list(traced.spans) == ["pick", "queue", "upstream", "chat chat"]
    assert seconds(traced.spans["upstream"])[1] == pytest.approx(2.4, abs=1e-5)


def test_names_that_are_no_unicode_do_not_stop_the_export() -> None:
    traced = Traced()
    traced.end(model="\ud800")
    assert (traced.spans["chat chat"].attributes or {})["gen_ai.request.model"] == "?"


async def test_spans_reach_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: list[bytes] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("post /v1/traces ")
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        bodies.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(collect, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        tracing = export_traces(rng=Random(1), wall_clock=lambda: NOON)
        trace = tracing.begin(CALLER)
        tracing.request_ended(make_record(arrived_s=0.0, dispatched_s=0.1, trace=trace))
        await asyncio.to_thread(tracing.close)
    (body,) = bodies
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert {a.key: a.value.string_value for a in resource.resource.attributes}[
        "service.name"
    ] == "llm-gateway"
    spans = resource.scope_spans[0].spans
    assert [span.name for span in spans] == ["pick", "queue", "upstream", "stream", "chat chat"]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
