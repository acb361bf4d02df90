"""One client's connection: an asyncio.Protocol on httptools, its requests answered in turn.

A request is handed to its handler, in a task of its own, as soon as its head is whole; the response
is written straight to the transport (`ClientChannel`). What comes behind a request waits until that
is answered; a little of it is read ahead, because only who reads learns that the client has left.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

from gateway.server.backend_connection import ReadFlow
from gateway.server.client_connections import ClientConnections, Connection, CutReason
from gateway.server.client_request import ClientRequest, RequestHandler
from gateway.server.client_socket import bound_unread
from gateway.server.last_words import CUT_ANSWERS, whole_response
from gateway.server.request_parser import MalformedRequest, RequestParser
from gateway.wire.error_response import (
    ErrorAnswer,
    ProtocolError,
    protocol_answer,
)

_LOG: Final = logging.getLogger(__name__)

_LINGER_S: Final = 2.0
"""For an answer to reach a client that is still sending: closing at once would reset the
connection, and the answer could be lost. What it sends is thrown away."""
_MAX_WAITING: Final = 16
"""Requests that are parsed while another one is answered."""
_PIECE_BYTES: Final = 4_096
"""That are parsed at once: as many tiny requests as fit may wait in addition."""


class ClientConnection(asyncio.Protocol):
    """Parses requests, has them answered one after the other, and passes flow control on."""

    __slots__ = (
        "_closing",
        "_connections",
        "_deaf",
        "_drained",
        "_fault",
        "_flow",
        "_handler",
        "_loop",
        "_parser",
        "_paused",
        "_place",
        "_unparsed",
        "_waiting",
        "has_asked",
        "remote",
        "task",
        "transport",
        "writing_paused",
    )

    def __init__(
        self,
        handler: RequestHandler,
        connections: ClientConnections,
        place: Connection | None = None,
    ) -> None:
        """`place` is what holds a place for this connection until it is made."""
        self._place = place
        self._handler = handler
        self._connections = connections
        self._parser = RequestParser(self, self._begun, connections.limits)
        self.transport: asyncio.Transport | None = None
        self.remote = ""
        self.writing_paused = False
        self.has_asked = False
        """Whether a request has come on this connection."""
        self.task: asyncio.Task[None] | None = None
        """In which a request is being handled."""
        self._waiting: list[ClientRequest] = []
        self._fault: ErrorAnswer | None = None
        self._flow: ReadFlow | None = None
        self._drained: asyncio.Future[None] | None = None
        self._deaf = False
        self._paused = False
        self._unparsed = b""
        self._closing: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """Kept: to ask for the running one is a system call in CPython 3.11."""

    @property
    def idle(self) -> bool:
        """Whether nothing of a next request has come."""
        return self.task is None and not self._parser.in_head

    def cut(self, reason: CutReason) -> None:
        """Close the connection; whoever has begun a request is told why."""
        answer, transport = CUT_ANSWERS.get(reason), self.transport
        if transport is None:
            return
        if answer is not None and not self._deaf:
            transport.write(whole_response(answer))
        if reason is CutReason.MADE_ROOM and transport.get_write_buffer_size():
            transport.abort()  # its place is needed, and nobody reads
        else:
            self.close()

    def close(self) -> None:
        """Close, after what has been written; nothing more is looked at."""
        self._deaf = True
        transport = self.transport
        if transport is None:
            return
        if transport.get_write_buffer_size():
            # A client that takes a byte now and then would keep it open for ever.
            self._close_later(self._connections.limits.unread_s, transport.abort)
        transport.close()

    def feed_from(self, flow: ReadFlow | None) -> None:
        """Let this source be paused while the client does not read; None ends that."""
        self._flow = flow
        if flow is not None and self.writing_paused:
            flow.pause_reading()

    def body_taken(self) -> None:
        """Read on, if reading was stopped because nobody took the body."""
        self._mind_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start without a request, if the limits allow."""
        # A cast, because uvloop's transports are not asyncio.Transport by inheritance.
        self.transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()
        peer = transport.get_extra_info("peername")
        self.remote = str(peer[0]) if peer else ""
        bound_unread(transport, self._connections.limits.unread_s)
        if self._place is not None:
            self._connections.closed(self._place)
        refused = self._connections.admit(self, self.remote)
        if refused is not None:
            self.cut(refused)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        """Make room for another, and stop the work for a client that has left."""
        self.transport = None
        self._parser.close()
        self._deaf = True
        self._waiting.clear()
        self._unparsed = b""
        if self._closing is not None:
            self._closing.cancel()
        self._connections.closed(self)
        if self.task is not None:
            # Not before it has begun, or nobody would hear of the request.
            asyncio.get_running_loop().call_soon(self.task.cancel)

    def data_received(self, data: bytes) -> None:
        """Parse one read."""
        if self._deaf:
            return
        if self._unparsed:
            self._unparsed += data  # it was on its way when reading was stopped
            return
        self._parse(data)
        if self.task is not None:
            self._mind_reading()
        elif self._parser.in_head and not self._deaf:
            self._connections.head_begun(self)

    def pause_writing(self) -> None:
        """Hold the feeder back: the client's buffer is full."""
        self.writing_paused = True
        if self._flow is not None:
            self._flow.pause_reading()

    def resume_writing(self) -> None:
        """Let the feeder go on: the client has read."""
        self.writing_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if self._flow is not None:
            self._flow.resume_reading()

    def _begun(self, request: ClientRequest) -> None:
        """Have a request handled, or let it wait until those before it are."""
        self.has_asked = True
        if self.task is None:
            self._connections.asked(self)
            self._start(request)
        else:
            self._waiting.append(request)

    def _parse(self, data: bytes) -> None:
        """Parse, but leave the rest as it is where many requests wait: bytes take less room."""
        rest = memoryview(data)
        try:
            while rest:
                if len(self._waiting) >= _MAX_WAITING:
                    self._unparsed = bytes(rest)
                    break
                size = len(rest)
                if size > _PIECE_BYTES and not self._parser.lacks_of_body(size):
                    size = _PIECE_BYTES
                self._parser.feed(rest[:size])
                rest = rest[size:]
        except MalformedRequest as fault:
            self._malformed(fault)

    def _malformed(self, fault: MalformedRequest) -> None:
        """Nothing that follows can be read: say so, after the answers that are owed."""
        self._deaf = True
        reason = CutReason.HEADER_TOO_LARGE if fault.too_large else CutReason.MALFORMED
        self._connections.counts[reason] += 1
        if self._parser.incoming is not None:
            # Its handler will find out, and answer.
            self._parser.break_off()
        elif self.task is not None:
            self._fault = fault.answer
        else:
            self._tell(fault.answer)

    def _tell(self, fault: ErrorAnswer) -> None:
        if self.transport is not None:
            self.transport.write(whole_response(fault))
        self._linger()

    def _start(self, request: ClientRequest) -> None:
        assert self._loop is not None
        self.task = self._loop.create_task(self._serve(request))

    async def _serve(self, request: ClientRequest) -> None:
        stays = False
        try:
            stays = await self._handler(request)
            if stays and self.writing_paused:
                stays = await self._is_drained()
        except Exception as error:  # noqa: BLE001 (it is logged whole, and answered)
            self._failed(request, error)
        finally:
            self.task = None
            self._served(request, stays=stays)

    def _served(self, request: ClientRequest, *, stays: bool) -> None:
        if self.transport is None:
            return
        if not (stays and request.body.complete):
            self._linger()
        elif self._waiting:
            self._start(self._waiting.pop(0))
            if self._unparsed and not self._waiting:
                unparsed, self._unparsed = self._unparsed, b""
                self._parse(unparsed)
            self._mind_reading()
        elif self._fault is not None:
            self._tell(self._fault)
        else:
            self._mind_reading()
            if self._parser.in_head:
                self._connections.head_begun(self)
            else:
                self._connections.idle(self)

    def _failed(self, request: ClientRequest, error: Exception) -> None:
        """Answer for a handler with a bug, if nothing of an answer has been sent."""
        request_id = request.request_id
        _LOG.error("request %s failed in the gateway", request_id or "without id", exc_info=error)
        if request.answered or self.transport is None:
            return
        answer = protocol_answer(ProtocolError.INTERNAL)
        if request_id is not None:
            header = (b"x-request-id", request_id.encode())
            answer = answer._replace(headers=(*answer.headers, header))
        self.transport.write(whole_response(answer))

    async def _is_drained(self) -> bool:
        """Wait while the client does not read what was written; False if that takes too long.

        Nobody would read the answers to further requests either, and they would pile up here.
        """
        self._drained = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._connections.idle_s):
                await self._drained
        except TimeoutError:
            return False
        finally:
            self._drained = None
        return True

    def _mind_reading(self) -> None:
        """Stop reading where enough waits for the request that is being handled."""
        incoming = self._parser.incoming
        enough = bool(self._unparsed) or (incoming is not None and incoming.body.is_full)
        if enough is not self._paused and self.transport is not None and not self._deaf:
            self._paused = enough
            if enough:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def _linger(self) -> None:
        """Close, but let the client read what it was told first."""
        self._deaf = True
        self._connections.asked(self)
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if not transport.can_write_eof():  # TLS
            self.close()
            return
        if self._paused:
            self._paused = False
            transport.resume_reading()
        with suppress(OSError):  # the client has reset the connection
            transport.write_eof()
        self._close_later(_LINGER_S, self.close)

    def _close_later(self, after_s: float, close: Callable[[], None]) -> None:
        if self._closing is not None:
            self._closing.cancel()
        self._closing = asyncio.get_running_loop().call_later(after_s, close)
