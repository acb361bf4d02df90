"""Sends spans to an OpenTelemetry collector over OTLP/HTTP, as the OTEL_* variables say."""

from collections.abc import Callable
from random import Random

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from gateway.telemetry.tracing import RequestTracing

_SERVICE = "llm-gateway"


def export_traces(*, rng: Random, wall_clock: Callable[[], float]) -> RequestTracing:
    """Tracing that sends its spans, from a thread of its own; `close` sends the last ones.

    The SDK reads endpoint, headers, sampler (`OTEL_TRACES_SAMPLER`), batch sizes and resource.
    """
    provider = TracerProvider(shutdown_on_exit=False)
    detected = provider.resource
    named = detected.attributes.get(SERVICE_NAME, "")
    if str(named).startswith("unknown_service"):
        detected = detected.merge(Resource({SERVICE_NAME: _SERVICE}))
    return RequestTracing(
        processor=BatchSpanProcessor(OTLPSpanExporter()),
        sampler=provider.sampler,
        resource=detected,
        rng=rng,
        wall_clock=wall_clock,
    )
