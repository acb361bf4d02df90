"""What we need of aiohttp beyond its documented interface, all in one place.

aiohttp's low-level server parses requests and owns the client's connection; we write the response
to the transport ourselves, because that costs a fraction of `StreamResponse.write`. That leans on:

- `web.Server.__call__` makes one protocol per connection, a `RequestHandler(server, loop=...)`;
- flow control of the transport reaches `pause_writing` and `resume_writing` of that protocol;
- a response returned by the handler is ended by awaiting `prepare` and `write_eof`, and its
  `keep_alive` decides whether the connection stays open; the next request is handled after that;
- `_drain_helper` waits while writing is paused;
- `handle_error` makes the answer to malformed requests and to exceptions of the handler; where
  it raises ConnectionError, the connection is closed;
- `_messages` holds requests that wait to be handled, `_waiter` is set while the next one is waited
  for, `_request_count` counts them, `_force_close` makes deaf; a protocol without `_manager` does
  nothing when its connection is lost;
- a head that is too large or has too many headers comes to `handle_error` as LineTooLong, or with
  a certain message;
- `request.writer.output_size` is ours to set: it tells that a response has begun.

tests/server/test_aiohttp_internals.py fails when a new aiohttp changes any of them.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from types import MappingProxyType
from typing import cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import InvalidURLError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from gateway.server.backend_connection import ReadFlow
from gateway.server.client_connections import ClientConnections, CutReason
from gateway.server.options import ConnectionLimits
from gateway.wire.error_response import (
    ErrorAnswer,
    ProtocolError,
    bad_request_answer,
    protocol_answer,
)
from gateway.wire.openai_request import BadRequest

_LOG = logging.getLogger(__name__)

_LAST_WORDS_S = 0.5
"""For an answer to reach a client that is still sending."""
_TOO_MANY_HEADERS = "Too many headers received"
"""What aiohttp says of them; there is no other way to tell."""
_CUT_ANSWERS = MappingProxyType(
    {
        CutReason.HEADER_TOO_SLOW: protocol_answer(ProtocolError.HEADER_TOO_SLOW),
        CutReason.HEADER_TOO_LARGE: protocol_answer(ProtocolError.HEADER_TOO_LARGE),
        CutReason.ALL_BUSY: protocol_answer(ProtocolError.CONNECTIONS),
        CutReason.PER_CLIENT: protocol_answer(ProtocolError.CLIENT_CONNECTIONS),
    }
)

REQUEST_ID = web.RequestKey("request_id", str)
"""Key under which a request has its id when its handler has failed."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class ClientProtocol(RequestHandler):
    """A client's connection that passes its flow control on to whoever feeds it.

    Attributes:
        busy: whether a request is being handled; kept by whoever handles it.
    """

    __slots__ = ("_connections", "_flow", "_head_bytes", "_head_tail", "busy")

    _connections: ClientConnections
    _flow: ReadFlow | None
    _head_bytes: int
    _head_tail: bytes
    busy: bool

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start without a request and without a feeder, if the limits allow."""
        self._flow = None
        self._head_bytes = 0
        self._head_tail = b""
        self.busy = False
        assert isinstance(self._manager, LowLevelServer)
        self._connections = self._manager.client_connections
        peer = transport.get_extra_info("peername")
        refused = self._connections.admit(self, str(peer[0]) if peer else "")
        _bound_unread(transport, self._connections.limits.unread_s)
        if refused is None:
            super().connection_made(transport)
            return
        # aiohttp gets to know nothing of it: no task, no timer.
        self._manager = None
        self._force_close = True
        self.transport = cast("asyncio.Transport", transport)
        self.cut(refused)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room for another."""
        self._connections.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Keep an eye on heads that come in pieces; the usual one comes whole."""
        if self._force_close:
            return
        waits = self.waits
        if waits and self._head_is_too_large(data):
            self._connections.cut(self, CutReason.HEADER_TOO_LARGE)
            return
        super().data_received(data)
        if not waits:
            return
        if not self._messages:
            self._head_bytes += len(data)
            self._head_tail = data[-3:]
            self._connections.head_begun(self)
        elif self._head_bytes:
            self._head_bytes = 0
            self._head_tail = b""
            self._connections.head_ended(self)

    def _head_is_too_large(self, data: bytes) -> bool:
        """Whether the head does not end within the limit; most often the size of a read tells."""
        room = self._connections.limits.header_bytes - self._head_bytes
        if len(data) <= room:
            return False
        return (self._head_tail + data[: room + 1]).find(b"\r\n\r\n") < 0

    @property
    def waits(self) -> bool:
        """Whether no request is being handled, or about to be."""
        return not self._messages and (self._waiter is not None or not self._request_count)

    @property
    def idle(self) -> bool:
        """Whether nothing of a next request has come."""
        return self.waits and not self.busy and not self._head_bytes

    @property
    def has_asked(self) -> bool:
        """Whether a request has come on this connection."""
        return self._request_count > 0

    def cut(self, reason: CutReason) -> None:
        """Close the connection; whoever has begun a request is told why."""
        answer, transport = _CUT_ANSWERS.get(reason), self.transport
        if answer is not None and transport is not None:
            transport.write(_whole_response(answer))
            if reason is CutReason.HEADER_TOO_LARGE:
                # Closing at once, with more on its way, would reset the connection, and the
                # answer could be lost. Nothing is looked at any more.
                self._force_close = True
                self._loop.call_later(_LAST_WORDS_S, self.force_close)
                return
        self.force_close()

    async def taken(self) -> bool:
        """Wait while the client does not read what was written; False if that takes too long.

        Nobody would read the answers to further requests either, and they would pile up here.
        """
        assert isinstance(self._manager, LowLevelServer)
        try:
            async with asyncio.timeout(self._manager.idle_s):
                await self._drain_helper()
        except TimeoutError:
            return False
        return True

    def feed_from(self, flow: ReadFlow | None) -> None:
        """Let this source be paused while the client does not read; None ends that."""
        self._flow = flow
        if flow is not None and self.writing_paused:
            flow.pause_reading()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never reached the handler, or a bug in it, in the shape clients expect.

        Raises:
            ConnectionError: a response has begun already; the connection is closed.
        """
        if status >= 500:
            request_id = request.get(REQUEST_ID)
            _LOG.error("request %s failed in the gateway", request_id or "without id", exc_info=exc)
            answer = protocol_answer(ProtocolError.INTERNAL)
            if request_id is not None:
                header = (b"x-request-id", request_id.encode())
                answer = answer._replace(headers=(*answer.headers, header))
        elif isinstance(exc, LineTooLong) or message == _TOO_MANY_HEADERS:
            self._connections.counts[CutReason.HEADER_TOO_LARGE] += 1
            answer = protocol_answer(ProtocolError.HEADER_TOO_LARGE)
        else:
            self._connections.counts[CutReason.MALFORMED] += 1
            # What follows the first line is a piece of the request, which may be a secret.
            said = (message or "Bad request").partition("\n")[0].rstrip(":. ")
            if isinstance(exc, InvalidURLError):  # its message is the target
                said = "The target of the request is not a valid URL"
            answer = bad_request_answer(BadRequest(f"{said}.", status=status))
        transport = self.transport
        if request.writer.output_size > 0 or transport is None:
            raise ConnectionError("a response has begun already")
        transport.write(_whole_response(answer))
        return SentResponse(self, keep_alive=False)

    def pause_writing(self) -> None:
        """Hold the feeder back: the client's buffer is full."""
        super().pause_writing()
        if self._flow is not None:
            self._flow.pause_reading()

    def resume_writing(self) -> None:
        """Let the feeder go on: the client has read."""
        super().resume_writing()
        if self._flow is not None:
            self._flow.resume_reading()


class LowLevelServer(web.Server):
    """aiohttp's low-level server (one handler, no router, no middleware) with our protocol.

    `idle_s` bounds the wait for a request on a kept-alive connection, and for the first one.
    Bodies are not decompressed: they are forwarded as they came.
    """

    def __init__(
        self, handler: Handler, *, idle_s: float, connections: ClientConnections | None = None
    ) -> None:
        super().__init__(handler, handler_cancellation=True)
        self.idle_s = idle_s
        if connections is None:
            connections = ClientConnections(ConnectionLimits())
        self.client_connections = connections

    def close_idle(self) -> None:
        """Close the connections that no request is being handled on.

        aiohttp's own `pre_shutdown` leaves their transports open, and makes the others deaf to the
        rest of a body that is still on its way.
        """
        for protocol in self.connections:
            if isinstance(protocol, ClientProtocol) and protocol.idle:
                protocol.force_close()

    def __call__(self) -> ClientProtocol:
        """Make the protocol of one accepted connection."""
        return ClientProtocol(
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self.idle_s,
            access_log=None,  # type: ignore[arg-type] # None turns the log off; it is not typed so
            auto_decompress=False,
            max_line_size=self.client_connections.limits.header_bytes,
            max_field_size=self.client_connections.limits.header_bytes,
            max_headers=self.client_connections.limits.header_count,
        )


def _bound_unread(transport: asyncio.BaseTransport, unread_s: float) -> None:
    """Let the system drop a client that takes nothing more; closing alone waits for it."""
    sock = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None and sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, option, int(unread_s * 1_000))


def _whole_response(answer: ErrorAnswer) -> bytes:
    headers = b"".join([b"%b: %b\r\n" % header for header in answer.headers])
    return b"HTTP/1.1 %d %b\r\n%bcontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
        answer.status,
        HTTPStatus(answer.status).phrase.encode(),
        headers,
        len(answer.body),
        answer.body,
    )


class SentResponse(web.StreamResponse):
    """Tells aiohttp that the response is already on the client's transport, whole or broken off."""

    def __init__(self, protocol: ClientProtocol, *, keep_alive: bool) -> None:
        super().__init__()
        self._protocol = protocol
        self._stays_open = keep_alive

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection may carry another request."""
        return self._stays_open

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Do nothing: the head has been sent."""

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002 (aiohttp's signature)
        """The end has been sent: let a client that is slow to read catch up."""
        if self._stays_open and self._protocol.writing_paused:
            self._stays_open = await self._protocol.taken()


def client_protocol(request: web.BaseRequest) -> ClientProtocol:
    """Return the connection that a request came on."""
    return cast("ClientProtocol", request.protocol)


def mark_as_answered(request: web.BaseRequest) -> None:
    """Keep aiohttp from writing an error response after ours has begun."""
    request.writer.output_size = 1
