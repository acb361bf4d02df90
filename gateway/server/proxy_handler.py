"""One client request that goes to a model server: read, parse, route, lease, attempts."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from msgspec.structs import replace

from gateway.runtime.clock import Clock
from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.model import InferenceRequest, RequestId
from gateway.server.attempts import Attempts, RequestFacts
from gateway.server.backend_connection import ReaderGaveUp
from gateway.server.client_channel import ClientChannel
from gateway.server.client_request import ClientRequest
from gateway.server.continued_stream import ContinuedStream
from gateway.server.entrance import Entrance, Visit
from gateway.server.options import FrontEndOptions
from gateway.server.request_body import ReceivedBody, Refused, read_body
from gateway.server.request_forwarding import (
    ForwardedRequest,
    is_administrative,
    is_proxied_path,
)
from gateway.server.request_progress import RequestProgress
from gateway.server.routes import PoolDirectory, Route
from gateway.telemetry.request_record import Outcome, RequestRecord, outcome_of_refusal
from gateway.telemetry.trace_context import TraceContext
from gateway.wire.error_response import (
    ProtocolError,
    bad_request_answer,
    protocol_answer,
    refusal_answer,
)
from gateway.wire.http_headers import (
    choose_request_id,
    parse_deadline,
    parse_fairness_id,
    parse_slo_headers,
)
from gateway.wire.multipart_request import parse_multipart_model
from gateway.wire.openai_request import BadRequest, parse_json_request
from gateway.wire.parsed_request import ParsedRequest, RequestKind

_TRY_AGAIN: Final = frozenset({429, 503})
"""Statuses of refusals that are not the request's own fault."""


class RequestObserver(Protocol):
    """Sees every proxied request that has ended."""

    def request_ended(self, record: RequestRecord) -> None:
        """Take note of it. Must not raise."""
        ...


class RequestTracer(Protocol):
    """Traces requests; how they end it sees as an observer."""

    def begin(self, headers: Iterable[tuple[bytes, bytes]]) -> TraceContext:
        """Give a request that came with `headers` the ids of its spans."""
        ...


class ProxyHandler:
    """Handles the POSTs under /v1/.

    `new_id` makes ids that no other request of this process has had, valid as X-Request-Id.
    """

    def __init__(
        self,
        *,
        pools: PoolDirectory,
        options: FrontEndOptions,
        clock: Clock,
        new_id: Callable[[], str],
        observer: RequestObserver,
        entrance: Entrance,
    ) -> None:
        self._pools = pools
        self._entrance = entrance
        self._options = options
        self._clock = clock
        self._new_id = new_id
        self._observer = observer
        self._tracer: RequestTracer | None = None

    def trace_with(self, tracer: RequestTracer) -> None:
        """Trace requests from now on."""
        self._tracer = tracer

    def reconfigure(self, options: FrontEndOptions) -> None:
        """Allow something else, to requests that come from now on."""
        self._options = options

    async def handle(
        self, request: ClientRequest, channel: ClientChannel, target: str, headers: bytes
    ) -> None:
        """Answer one request on `channel`.

        Args:
            request: a POST.
            channel: of the same request.
            target: path and query in origin form.
            headers: complete lines for every answer (CORS).
        """
        lease_id = self._new_id()
        progress = RequestProgress(
            request_id=choose_request_id(request.x_headers, generated=lease_id),
            lease_id=lease_id,
            path=target.partition("?")[0],
            started_at=self._clock(),
        )
        if self._tracer is not None:
            progress.trace = self._tracer.begin(request.headers)
        visit: Visit | None = None
        try:
            visit = self._entrance.enter(request)
            progress.key = visit.key_name
            await self._proxy(request, channel, progress, target.encode("latin-1"), headers, visit)
        except (Refused, BadRequest) as refusal:
            answer = refusal.answer if isinstance(refusal, Refused) else bad_request_answer(refusal)
            retried = answer.status in _TRY_AGAIN
            progress.end(Outcome.REFUSED if retried else Outcome.CLIENT_ERROR, answer.reason)
            if not request.body.complete:
                # Reading on only to throw it away is what the limits are there to avoid.
                channel.close_after()
            id_header = b"x-request-id: %b\r\n" % progress.request_id.encode()
            channel.send_answer(answer, headers + id_header)
        except ReaderGaveUp:
            progress.end(Outcome.CANCELLED)
            channel.abort()
        except asyncio.CancelledError:
            if progress.outcome is None:
                _end_cancelled(channel, progress, headers)
            raise
        finally:
            if progress.outcome is None:
                request.request_id = progress.request_id
            status = channel.status if channel.started else 0
            record = progress.record(status=status, now=self._clock())
            if visit is not None:
                visit.leave(record)
            self._observer.request_ended(record)

    async def _proxy(
        self,
        request: ClientRequest,
        channel: ClientChannel,
        progress: RequestProgress,
        target: bytes,
        headers: bytes,
        visit: Visit,
    ) -> None:
        _refuse_path(progress.path)
        body = await read_body(request, channel, self._options, visit.hold)
        arrived_at = progress.arrived_at = self._clock()
        parsed = progress.parsed = _parse(request, progress.path, body)
        route = progress.route = self._pools.route(parsed.model)
        headers += visit.admit(parsed, route)
        assert route is not None
        forwarded = ForwardedRequest(
            request=request,
            request_id=progress.request_id,
            parsed=parsed,
            body=body,
            service=route.service,
            options=route.pool.options,
        )
        forwarded.trace = progress.trace
        facts = RequestFacts(
            progress=progress,
            target=target,
            model=parsed.model,
            expects_finish=parsed.kind is not RequestKind.OTHER,
            arrived_at=arrived_at,
            common_headers=headers,
            debug_headers=self._options.debug_headers,
            deadline_at=_deadline_at(request, route, progress.started_at),
        )
        inference = _inference_request(request, parsed, route, progress.lease_id)
        async with route.pool.driver.lease(inference, request.connection.task) as lease:
            attempts = Attempts(
                lease=lease,
                channel=channel,
                forwarded=forwarded,
                backends=route.pool.backends,
                facts=facts,
                clock=self._clock,
            )
            await attempts.run()
        if attempts.broken is not None:
            rest = ContinuedStream(
                pool=route.pool,
                channel=channel,
                forwarded=forwarded,
                facts=facts,
                clock=self._clock,
                describe=lambda parsed, lease_id: replace(
                    _inference_request(request, parsed, route, lease_id),
                    target=None if progress.dispatch is None else progress.dispatch.model,
                ),
            )
            await rest.run(attempts)


def _end_cancelled(channel: ClientChannel, progress: RequestProgress, headers: bytes) -> None:
    """Tell who cancelled: the client by leaving or, if it is still there, the gateway that ends."""
    reason = RefusalReason.DRAINING
    if not channel.started:
        channel.close_after()
        id_header = b"x-request-id: %b\r\n" % progress.request_id.encode()
        channel.send_answer(refusal_answer(reason), headers + id_header)
        if channel.started:
            progress.end(outcome_of_refusal(reason), reason)
            return
    progress.end(Outcome.CANCELLED)


def _deadline_at(request: ClientRequest, route: Route, started_at: float) -> float | None:
    """When the whole request has to be over; clients can only ask for less than their service."""
    own_s = parse_deadline(request.x_headers)
    allowed_s = route.pool.options.deadlines.get(route.service.name)
    bounds = [bound for bound in (own_s, allowed_s) if bound is not None]
    return started_at + min(bounds) if bounds else None


def _refuse_path(path: str) -> None:
    if is_administrative(path):
        detail = "Adapters are loaded and unloaded at the servers themselves."
        raise Refused(protocol_answer(ProtocolError.FORBIDDEN, detail=detail))
    if not is_proxied_path(path):
        raise Refused(protocol_answer(ProtocolError.NOT_FOUND))


def _parse(request: ClientRequest, path: str, body: ReceivedBody) -> ParsedRequest:
    content_type = request.header(b"content-type") or ""
    if content_type.lower().startswith("multipart/form-data"):
        return parse_multipart_model(content_type, body.readable)
    return parse_json_request(path, body.readable)


def _inference_request(
    request: ClientRequest, parsed: ParsedRequest, route: Route, lease_id: str
) -> InferenceRequest:
    ttft_slo_s, tpot_slo_s = parse_slo_headers(request.x_headers)
    return InferenceRequest(
        id=RequestId(lease_id),
        service=route.service.name,
        model=parsed.model,
        prompt_bytes=parsed.prompt_bytes,
        body_bytes=len(parsed.body),
        prompt_tokens=parsed.prompt_tokens,
        max_tokens=parsed.max_tokens,
        choices=parsed.choices,
        streamed=parsed.streamed,
        generates=parsed.generates,
        prefix_blocks=parsed.prefix_blocks,
        ttft_slo_s=ttft_slo_s,
        tpot_slo_s=tpot_slo_s,
        fairness_id=parse_fairness_id(request.x_headers),
    )
