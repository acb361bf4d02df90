"""OpenTelemetry spans of requests, made when a request has ended out of what is known then.

So a request costs a few random ids while it runs, and nothing where tracing is off. Needs the extra
`tracing`. Spans follow the semantic conventions of HTTP and of generative AI (status: development);
what has no name there is below `llm_gateway.`.
"""

from collections.abc import Callable, Iterable
from random import Random
from typing import NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from gateway.telemetry.request_record import Outcome, RequestRecord
from gateway.telemetry.trace_context import RemoteParent, TraceContext, parse_traceparent

_NS = 1_000_000_000
_OPERATIONS = (
    ("/chat/completions", "chat"),
    ("/completions", "text_completion"),
    ("/embeddings", "embeddings"),
)
_FAILED = frozenset({Outcome.FAILED, Outcome.STREAM_ERROR, Outcome.EXPIRED, Outcome.REFUSED})

_Attributes = dict[str, str | bool | int | float]
_Facts = dict[str, str | bool | int | float | None]


class _Stretch(NamedTuple):
    """A child span: seconds from the request's start."""

    name: str
    start_s: float
    end_s: float


class RequestTracing:
    """Begins traces and observes how requests end."""

    def __init__(
        self,
        *,
        processor: SpanProcessor,
        sampler: Sampler,
        resource: Resource,
        rng: Random,
        wall_clock: Callable[[], float],
    ) -> None:
        """Hand spans that `sampler` chose to `processor`; ids are drawn from `rng`."""
        self._processor = processor
        self._sampler = sampler
        self._resource = resource
        self._rng = rng
        self._wall_clock = wall_clock
        self._scope = InstrumentationScope("gateway.telemetry.tracing")

    def begin(self, headers: Iterable[tuple[bytes, bytes]]) -> TraceContext:
        """Give a request its spans' ids, in the caller's trace where its headers name one."""
        parent = parse_traceparent(headers)
        trace_id = self._id(32) if parent is None else parent.trace_id
        return TraceContext(
            trace_id=trace_id,
            span_id=self._id(16),
            upstream_id=self._id(16),
            parent_id=None if parent is None else parent.span_id,
            sampled=self._is_sampled(trace_id, parent),
        )

    def request_ended(self, record: RequestRecord) -> None:
        """Make the spans of one request."""
        trace = record.trace
        if trace is None or not trace.sampled:
            return
        ended_ns = int(self._wall_clock() * _NS)
        started_ns = ended_ns - int(record.e2e_s * _NS)
        root = _context(trace, trace.span_id)
        failed = record.outcome in _FAILED
        span = ReadableSpan(
            _name(record),
            context=root,
            parent=_context(trace, trace.parent_id, remote=True) if trace.parent_id else None,
            resource=self._resource,
            attributes=_attributes(record),
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR, record.reason or record.outcome)
            if failed
            else Status(StatusCode.UNSET),
            start_time=started_ns,
            end_time=ended_ns,
            instrumentation_scope=self._scope,
        )
        for stretch in _stretches(record):
            is_upstream = stretch.name == "upstream"
            child = ReadableSpan(
                stretch.name,
                context=_context(trace, trace.upstream_id if is_upstream else self._id(16)),
                parent=root,
                resource=self._resource,
                attributes=_upstream_attributes(record) if is_upstream else {},
                kind=SpanKind.CLIENT if is_upstream else SpanKind.INTERNAL,
                start_time=started_ns + int(stretch.start_s * _NS),
                end_time=started_ns + int(stretch.end_s * _NS),
                instrumentation_scope=self._scope,
            )
            self._processor.on_end(child)
        self._processor.on_end(span)

    def close(self) -> None:
        """Send what is left."""
        self._processor.shutdown()

    def _id(self, digits: int) -> str:
        # All zeros mean no id.
        return f"{self._rng.randrange(1, 1 << (4 * digits)):0{digits}x}"

    def _is_sampled(self, trace_id: str, parent: RemoteParent | None) -> bool:
        context = None
        if parent is not None:
            flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
            remote = SpanContext(
                int(trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags
            )
            context = set_span_in_context(NonRecordingSpan(remote))
        chosen = self._sampler.should_sample(context, int(trace_id, 16), "request")
        return chosen.decision is Decision.RECORD_AND_SAMPLE


def _context(trace: TraceContext, span_id: str, *, remote: bool = False) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(
        int(trace.trace_id, 16), int(span_id, 16), is_remote=remote, trace_flags=flags
    )


def _stretches(record: RequestRecord) -> list[_Stretch]:
    """`pick` is the gateway's own time, `upstream` ends with the first token if one was seen.

    Earlier attempts of a request that was tried again are a gap between `queue` and `upstream`.
    """
    if record.arrived_s is None:
        return []
    if record.dispatched_s is None:
        return [_Stretch("queue", record.arrived_s, record.e2e_s)]
    picked_s = record.arrived_s + (record.overhead_s or 0.0)
    first_s = record.e2e_s if record.ttft_s is None else record.ttft_s
    found = [
        _Stretch("pick", record.arrived_s, picked_s),
        _Stretch("queue", picked_s, min(record.dispatched_s, picked_s + record.queue_s)),
        _Stretch("upstream", record.dispatched_s, first_s),
    ]
    if record.ttft_s is not None:
        found.append(_Stretch("stream", first_s, record.e2e_s))
    return found


def _operation(record: RequestRecord) -> str | None:
    return next((name for end, name in _OPERATIONS if record.path.endswith(end)), None)


def _name(record: RequestRecord) -> str:
    """Few different ones: names of services, not whatever model a client made up."""
    return f"{_operation(record) or 'request'} {record.service or ''}".rstrip()


def _attributes(record: RequestRecord) -> _Attributes:
    told: _Facts = {
        "http.request.method": "POST",
        "http.response.status_code": record.status,
        "url.path": record.path,
        "error.type": record.reason or record.outcome if record.outcome in _FAILED else None,
        "gen_ai.operation.name": _operation(record),
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": record.model,
        "gen_ai.request.stream": record.streamed,
        "gen_ai.response.model": record.target_model,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
        "gen_ai.response.time_to_first_chunk": record.ttft_s,
        "llm_gateway.request_id": record.request_id,
        "llm_gateway.lease_id": record.lease_id,
        "llm_gateway.pool": record.pool,
        "llm_gateway.service": record.service,
        "llm_gateway.priority": record.priority,
        "llm_gateway.outcome": record.outcome,
        "llm_gateway.attempts": record.attempts,
        "llm_gateway.queue_s": record.queue_s,
    }
    return _known(told)


def _upstream_attributes(record: RequestRecord) -> _Attributes:
    told: _Facts = {
        "server.address": record.backend_id,
        "gen_ai.request.model": record.target_model,
        "llm_gateway.forecast.ttft_s": record.forecast_ttft_s,
        "llm_gateway.forecast.tpot_s": record.forecast_tpot_s,
        "llm_gateway.attempt": record.attempts,
    }
    return _known(told)


def _known(told: _Facts) -> _Attributes:
    """Enums become text, which exporters know; text that is no Unicode is made so."""
    return {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in told.items()
        if value is not None
    }
