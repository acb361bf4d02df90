"""One client request that goes to a model server: read, parse, route, lease, attempts."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from aiohttp import web

from gateway.runtime.clock import Clock
from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.model import BackendId, InferenceRequest, RequestId, ServiceName
from gateway.server.attempts import Attempts, RequestFacts
from gateway.server.backend_connection import ReaderGaveUp
from gateway.server.client_channel import ClientChannel
from gateway.server.options import FrontEndOptions
from gateway.server.request_body import ReceivedBody, Refused, read_body
from gateway.server.request_forwarding import (
    ForwardedRequest,
    is_administrative,
    is_proxied_path,
)
from gateway.server.routes import PoolDirectory, Route
from gateway.wire.error_response import (
    ProtocolError,
    bad_request_answer,
    protocol_answer,
    refusal_answer,
)
from gateway.wire.http_headers import choose_request_id, parse_fairness_id, parse_slo_headers
from gateway.wire.multipart_request import parse_multipart_model
from gateway.wire.openai_request import (
    BadRequest,
    ParsedRequest,
    RequestKind,
    parse_json_request,
)

_CLIENT_LEFT = 499


class RequestRecord(NamedTuple):
    """One request that has ended, for the request log.

    Attributes:
        request_id: the X-Request-Id.
        lease_id: the gateway's own unique id, as the scheduler and the journal know it.
        path: without query.
        model, service: None where the request ended before they were known.
        backend_id: the server that was tried last, or None.
        status: what the client got; 499 if it left before there was an answer.
        complete: whether the answer was written to its end.
        duration_s: from the handler's start to its end.
    """

    request_id: str
    lease_id: str
    path: str
    model: str | None
    service: ServiceName | None
    backend_id: BackendId | None
    status: int
    complete: bool
    duration_s: float


class RequestObserver(Protocol):
    """Sees every proxied request that has ended."""

    def request_ended(self, record: RequestRecord) -> None:
        """Take note of it. Must not raise."""
        ...


class _Progress:
    """How far one request has come, for its record."""

    __slots__ = ("attempts", "parsed", "route")

    def __init__(self) -> None:
        self.parsed: ParsedRequest | None = None
        self.route: Route | None = None
        self.attempts: Attempts | None = None


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
    ) -> None:
        self._pools = pools
        self._options = options
        self._clock = clock
        self._new_id = new_id
        self._observer = observer

    async def handle(
        self, request: web.BaseRequest, channel: ClientChannel, target: str, headers: bytes
    ) -> None:
        """Answer one request on `channel`.

        Args:
            request: a POST.
            channel: of the same request.
            target: path and query in origin form.
            headers: complete lines for every answer (CORS).
        """
        started_at = self._clock()
        lease_id = self._new_id()
        request_id = choose_request_id(request.raw_headers, generated=lease_id)
        progress = _Progress()
        try:
            await self._proxy(request, channel, progress, (target, headers, lease_id, request_id))
        except (Refused, BadRequest) as refusal:
            answer = refusal.answer if isinstance(refusal, Refused) else bad_request_answer(refusal)
            if not request.content.is_eof():
                # Reading on only to throw it away is what the limits are there to avoid.
                channel.close_after()
            channel.send_answer(answer, headers + _id_header(request_id))
        except ReaderGaveUp:
            channel.abort()
        finally:
            parsed, route, attempts = progress.parsed, progress.route, progress.attempts
            self._observer.request_ended(
                RequestRecord(
                    request_id=request_id,
                    lease_id=lease_id,
                    path=target.partition("?")[0],
                    model=None if parsed is None else parsed.model,
                    service=None if route is None else route.service.name,
                    backend_id=None if attempts is None else attempts.backend_id,
                    status=channel.status if channel.started else _CLIENT_LEFT,
                    complete=channel.complete,
                    duration_s=self._clock() - started_at,
                )
            )

    async def _proxy(
        self,
        request: web.BaseRequest,
        channel: ClientChannel,
        progress: _Progress,
        names: tuple[str, bytes, str, str],
    ) -> None:
        target, headers, lease_id, request_id = names
        path = target.partition("?")[0]
        _refuse_path(path)
        body = await read_body(request, channel, self._options)
        arrived_at = self._clock()
        parsed = progress.parsed = _parse(request, path, body)
        route = progress.route = self._pools.route(parsed.model)
        if route is None:
            raise Refused(refusal_answer(RefusalReason.UNKNOWN_MODEL, model=parsed.model))
        inference = _inference_request(request, parsed, route, lease_id)
        async with route.pool.driver.lease(inference) as lease:
            attempts = progress.attempts = Attempts(
                lease=lease,
                channel=channel,
                forwarded=ForwardedRequest(
                    request=request,
                    request_id=request_id,
                    parsed=parsed,
                    body=body,
                    service=route.service,
                    options=route.pool.options,
                ),
                backends=route.pool.backends,
                facts=RequestFacts(
                    request_id=request_id,
                    target=target.encode("latin-1"),
                    model=parsed.model,
                    expects_finish=parsed.kind is not RequestKind.OTHER,
                    arrived_at=arrived_at,
                    common_headers=headers,
                    debug_headers=self._options.debug_headers,
                ),
                clock=self._clock,
            )
            await attempts.run()


def _refuse_path(path: str) -> None:
    if is_administrative(path):
        detail = "Adapters are loaded and unloaded at the servers themselves."
        raise Refused(protocol_answer(ProtocolError.FORBIDDEN, detail=detail))
    if not is_proxied_path(path):
        raise Refused(protocol_answer(ProtocolError.NOT_FOUND))


def _parse(request: web.BaseRequest, path: str, body: ReceivedBody) -> ParsedRequest:
    content_type = request.headers.get("Content-Type", "")
    if content_type.lower().startswith("multipart/form-data"):
        return parse_multipart_model(content_type, body.readable)
    return parse_json_request(path, body.readable)


def _inference_request(
    request: web.BaseRequest, parsed: ParsedRequest, route: Route, lease_id: str
) -> InferenceRequest:
    ttft_slo_s, tpot_slo_s = parse_slo_headers(request.raw_headers)
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
        fairness_id=parse_fairness_id(request.raw_headers),
    )


def _id_header(request_id: str) -> bytes:
    return b"x-request-id: %b\r\n" % request_id.encode()
