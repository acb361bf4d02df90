"""What we need of aiohttp beyond its documented interface, all in one place.

aiohttp's low-level server parses requests and owns the client's connection; we write the response
to the transport ourselves, because that costs a fraction of `StreamResponse.write`. That leans on:

- `web.Server.__call__` makes one protocol per connection, a `RequestHandler(server, loop=...)`;
- flow control of the transport reaches `pause_writing` and `resume_writing` of that protocol;
- a response returned by the handler is ended by awaiting `prepare` and `write_eof`, and its
  `keep_alive` decides whether the connection stays open;
- `handle_error` makes the answer to malformed requests and to exceptions of the handler; where
  it raises ConnectionError, the connection is closed;
- `request.writer.output_size` is ours to set: it tells that a response has begun.

tests/server/test_aiohttp_internals.py fails when a new aiohttp changes any of them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_protocol import RequestHandler

from gateway.server.backend_connection import ReadFlow
from gateway.wire.error_response import ProtocolError, bad_request_answer, protocol_answer
from gateway.wire.openai_request import BadRequest

_LOG = logging.getLogger(__name__)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class ClientProtocol(RequestHandler):
    """A client's connection that passes its flow control on to whoever feeds it.

    Attributes:
        busy: whether a request is being handled; kept by whoever handles it.
    """

    __slots__ = ("_flow", "busy")

    _flow: ReadFlow | None
    busy: bool

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start without a request and without a feeder."""
        self._flow = None
        self.busy = False
        super().connection_made(transport)

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
            _LOG.error("a request failed in the gateway", exc_info=exc)
            answer = protocol_answer(ProtocolError.INTERNAL)
        else:
            answer = bad_request_answer(BadRequest(message or "Bad request.", status=status))
        if request.writer.output_size > 0:
            raise ConnectionError("a response has begun already")
        response = web.Response(
            status=answer.status,
            body=answer.body,
            headers=[(name.decode(), value.decode()) for name, value in answer.headers],
        )
        response.force_close()
        return response

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

    def __init__(self, handler: Handler, *, idle_s: float) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._idle_s = idle_s

    def close_idle(self) -> None:
        """Close the connections that no request is being handled on.

        aiohttp's own `pre_shutdown` leaves their transports open, and makes the others deaf to the
        rest of a body that is still on its way.
        """
        for protocol in self.connections:
            if isinstance(protocol, ClientProtocol) and not protocol.busy:
                protocol.force_close()

    def __call__(self) -> ClientProtocol:
        """Make the protocol of one accepted connection."""
        return ClientProtocol(
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._idle_s,
            access_log=None,  # type: ignore[arg-type] # None turns the log off; it is not typed so
            auto_decompress=False,
        )


class SentResponse(web.StreamResponse):
    """Tells aiohttp that the response is already on the client's transport, whole or broken off."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._stays_open = keep_alive

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection may carry another request."""
        return self._stays_open

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Do nothing: the head has been sent."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: the end has been sent."""


def client_protocol(request: web.BaseRequest) -> ClientProtocol:
    """Return the connection that a request came on."""
    return cast("ClientProtocol", request.protocol)


def mark_as_answered(request: web.BaseRequest) -> None:
    """Keep aiohttp from writing an error response after ours has begun."""
    request.writer.output_size = 1
