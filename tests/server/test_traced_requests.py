from random import Random

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from gateway.settings.problems import ConfigurationError
from gateway.settings.tracing import TracingSettings
from gateway.telemetry.tracing import RequestTracing
from tests.server.gateway_rig import CHAT, chat, gateway
from tests.server.raw_server import RawServer, ok, serving

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"traceparent: 00-{TRACE}-b7ad6b7169203331-01"


ANSWER = ok(b"{}", b"content-type: application/json")


def lines(server: RawServer) -> list[str]:
    """The headers of the last request that the server got."""
    return [f"{name}: {value}" for name, value in server.requests[-1].headers]


def traced() -> RequestTracing:
    return RequestTracing(
        processor=SimpleSpanProcessor(InMemorySpanExporter()),
        sampler=ALWAYS_ON,
        resource=Resource({}),
        rng=Random(1),
        wall_clock=lambda: 0.0,
    )


async def test_the_server_gets_the_trace_with_the_gateways_span() -> None:
    server = serving(ANSWER)
    async with gateway(server) as rig, rig.client() as client:
        rig.front_end._proxy.trace_with(traced())
        client.post(CHAT, chat(), "Content-Type: application/json", CALLER)
        await client.response()
        record = rig.records.all[-1]
        assert record.trace is not None
        assert record.trace.trace_id == TRACE
        sent = [line for line in lines(server) if line.startswith("traceparent")]
        assert sent == [f"traceparent: 00-{TRACE}-{record.trace.upstream_id}-01"]
        assert record.arrived_s is not None
        assert record.dispatched_s is not None
        assert 0 <= record.arrived_s <= record.dispatched_s <= record.e2e_s


async def test_without_tracing_the_clients_header_passes_through() -> None:
    server = serving(ANSWER)
    async with gateway(server) as rig, rig.client() as client:
        client.post(CHAT, chat(), "Content-Type: application/json", CALLER)
        await client.response()
        assert CALLER in lines(server)
        assert rig.records.all[-1].trace is None


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "perhaps"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_tracing_is_on_where_a_collector_is_named(
    variables: dict[str, str], *, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert TracingSettings().wanted() is wanted


@pytest.mark.parametrize(
    "endpoint", ["collector:4318", "grpc://collector:4317", "http://", "http://c:x", "http://[::1"]
)
@pytest.mark.parametrize(
    "name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
)
def test_a_collector_that_spans_cannot_be_sent_to_is_refused_at_start(
    name: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv(name, endpoint)
    with pytest.raises(ConfigurationError, match=f"{name}: .*expected the collector's URL"):
        TracingSettings().wanted()
