"""What is known of one request when it has ended: the source of metrics and of the request log."""

from enum import StrEnum
from typing import assert_never

import msgspec

from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.model import BackendId, ServiceName
from gateway.telemetry.trace_context import TraceContext


class Outcome(StrEnum):
    """How a request ended, seen from its client."""

    OK = "ok"
    CLIENT_ERROR = "client_error"
    """A 4xx about the request itself, by the gateway or by the server."""
    REFUSED = "refused"
    EXPIRED = "expired"
    """It waited in the queue for as long as it may."""
    FAILED = "failed"
    """No server answered, or the last one tried broke before the answer began."""
    STREAM_ERROR = "stream_error"
    """The answer had begun, and then broke or told of an error."""
    CANCELLED = "cancelled"
    """The client left."""


def outcome_of_refusal(reason: RefusalReason) -> Outcome:
    """The outcome of a request that the scheduler did not admit, or gave up."""
    match reason:
        case RefusalReason.UNKNOWN_MODEL | RefusalReason.NO_TARGET_MODEL:
            return Outcome.CLIENT_ERROR
        case RefusalReason.QUEUE_TIMEOUT | RefusalReason.NO_BACKEND | RefusalReason.DEADLINE:
            return Outcome.EXPIRED
        case RefusalReason.ATTEMPTS_EXHAUSTED:
            return Outcome.FAILED
        case (
            RefusalReason.NO_CAPACITY
            | RefusalReason.QUEUE_FULL
            | RefusalReason.OBJECTIVE_IMPOSSIBLE
            | RefusalReason.DISPLACED
            | RefusalReason.PREEMPTED
            | RefusalReason.DRAINING
        ):
            return Outcome.REFUSED
        case _:
            assert_never(reason)


class RequestRecord(msgspec.Struct, gc=False):
    """One finished request. No prompt, no answer and no secret is in it; None is "not known".

    Whoever is given one leaves it as it is. It is a structure of msgspec's because making one and
    writing it down is work of every request; no cycle can go through one, so the garbage collector
    does not have to look at those that are kept.

    Attributes:
        lease_id: the gateway's own unique id, as the scheduler and the journal know it.
        request_id: the X-Request-Id: the client's, or one that the gateway made.
        path: of the URL, without the query.
        outcome, status: how it ended; 499 where the client left before there was an answer.
        reason: why it was refused or how its last attempt failed.
        key: name of the client's API key, never the key itself.
        pool, service, priority: None where the request ended before it was routed.
        fallback_for: the service that was asked for, where `service` answered in its place.
        model: the name that the client sent; `target_model` is the one that was sent on.
        backend_id: the server that was tried last.
        streamed: whether the client asked for a stream.
        attempts: servers tried.
        continuations: how often another server went on with an answer that had broken off.
        e2e_s: from arrival to the last byte.
        ttft_s: from arrival to the first token; None where the answer was not streamed.
        queue_s: time that the scheduler kept the request waiting, over all attempts.
        overhead_s: the gateway's own time before the first attempt, waiting left out.
        prompt_tokens, completion_tokens, cached_tokens: as the server counted.
        forecast_ttft_s, forecast_tpot_s: of the last attempt, counted from its dispatch.
        arrived_s, dispatched_s: from arrival of the head to that of the whole body, and to the
            last dispatch.
        trace: the spans' ids, where tracing is on.
        dispatch_ttft_s: what `forecast_ttft_s` forecast: from the last dispatch to the first token.
        tpot_s, ntpot_s: see token_times.py.
    """

    lease_id: str
    request_id: str
    path: str
    outcome: Outcome
    status: int
    e2e_s: float
    reason: StrEnum | None = None
    key: str | None = None
    pool: str | None = None
    service: ServiceName | None = None
    fallback_for: ServiceName | None = None
    priority: int | None = None
    model: str | None = None
    target_model: str | None = None
    backend_id: BackendId | None = None
    streamed: bool = False
    attempts: int = 0
    continuations: int = 0
    ttft_s: float | None = None
    queue_s: float = 0.0
    overhead_s: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    forecast_ttft_s: float | None = None
    forecast_tpot_s: float | None = None
    dispatch_ttft_s: float | None = None
    arrived_s: float | None = None
    dispatched_s: float | None = None
    trace: TraceContext | None = None
    tpot_s: float | None = None
    ntpot_s: float | None = None
