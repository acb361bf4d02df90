"""One connection to a model server: an asyncio.Protocol on httptools, one request at a time.

Bytes go from `data_received` through the parser straight into a sink; nothing here wakes a task
before the response has ended.
"""

import asyncio
from typing import Final, Protocol, cast

import httptools

from gateway.runtime.clock import Clock
from gateway.scheduling.events import FailureKind

_MAX_HEAD_BYTES: Final = 65_536
_COPIED_BYTES: Final = 4_096
"""Of a body: to copy as much costs less than to hand the kernel two pieces."""


class BackendFailure(Exception):  # noqa: N818 (it is what happened to the server, not a bug)
    """An attempt on a server ended without a complete response.

    Attributes:
        kind: what the scheduler learns from it.
        detail: for logs; never shown to clients.
    """

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


class ReaderGaveUp(Exception):  # noqa: N818 (it is the client's doing)
    """The sink has held the server back for longer than it may."""


class ResponseHead:
    """Status line and headers of a final (not 1xx) response, names in lower case."""

    __slots__ = ("headers", "reason", "status")

    def __init__(self, status: int, reason: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Take them."""
        self.status = status
        self.reason = reason
        self.headers = headers


class ReadFlow(Protocol):
    """What a sink holds to slow the server down.

    Attributes:
        last_data_at: when the newest bytes came, by the clock of the connection.
    """

    last_data_at: float

    def pause_reading(self) -> None:
        """Read no more from the server until `resume_reading`. Repeating it is harmless."""
        ...

    def resume_reading(self) -> None:
        """Undo `pause_reading`. Repeating it is harmless."""
        ...

    def refuse(self, complaint: str) -> None:
        """Take no more of this response: the server breaks the rules."""
        ...


class ResponseSink(Protocol):
    """Receives one response; both methods are called from the connection's `data_received`."""

    def head_received(self, head: ResponseHead, flow: ReadFlow) -> None:
        """Take the head; called once, before any body."""
        ...

    def body_received(self, data: bytes, *, last: bool) -> None:
        """Take all body bytes of one read; `data` may be empty only when `last`."""
        ...


class BackendConnection(asyncio.Protocol):
    """A connection that is either idle or carries exactly one request.

    `begin` returns a future of how the exchange ended: True after a complete response, False when
    the server had closed this kept-alive connection before it saw the request (safe to repeat on
    a fresh one); it raises BackendFailure otherwise.
    """

    __slots__ = (
        "_answered",
        "_clock",
        "_complete",
        "_done",
        "_framed",
        "_head",
        "_head_bytes",
        "_head_delivered",
        "_headers",
        "_keep_alive",
        "_loop",
        "_parser",
        "_paused",
        "_pieces",
        "_reason",
        "_served",
        "_sink",
        "_transport",
        "last_data_at",
        "on_body",
    )

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """Kept: to ask for the running one is a system call in CPython 3.11."""
        self._pieces: list[bytes] = []
        # The parser calls this for every piece of body; a Python frame each would cost more
        # than the rest of the parsing.
        self.on_body = self._pieces.append
        self._parser = httptools.HttpResponseParser(self)
        self._sink: ResponseSink | None = None
        self._done: asyncio.Future[bool] | None = None
        self._served = 0
        self.last_data_at = 0.0
        self._reset()

    def _reset(self) -> None:
        self._head: ResponseHead | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._head_bytes = 0
        self._answered = False
        self._head_delivered = False
        self._framed = False
        self._complete = False
        self._keep_alive = False
        self._paused = False
        self._pieces.clear()

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent: complete, kept alive by the server, still open."""
        transport = self._transport
        return (
            self._sink is None
            and self._keep_alive
            and transport is not None
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
        )

    @property
    def answered(self) -> bool:
        """Whether a byte of the current response has arrived."""
        return self._answered

    @property
    def paused(self) -> bool:
        """Whether the sink holds the server back, so that silence is not the server's fault."""
        return self._paused

    def begin(self, head: bytes, body: bytes, sink: ResponseSink) -> asyncio.Future[bool]:
        """Send one whole request and feed its response to `sink`."""
        transport = self._transport
        assert transport is not None
        self._reset()
        self._sink = sink
        assert self._loop is not None
        self._done = self._loop.create_future()
        self.last_data_at = self._clock()
        if len(body) <= _COPIED_BYTES:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        return self._done

    def fail(self, failure: BackendFailure | ReaderGaveUp) -> None:
        """End the exchange, if one is on, and close the connection at once."""
        self._settle(failure)
        self.abort()

    def abort(self) -> None:
        """Close the connection at once, without flushing; the sink hears no more."""
        self._sink = None
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        """Stop reading from the server; the kernel's window then holds it back."""
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def refuse(self, complaint: str) -> None:
        """End the exchange as one that breaks the protocol."""
        self.fail(BackendFailure(FailureKind.PROTOCOL, complaint))

    def resume_reading(self) -> None:
        """Read from the server again."""
        if self._paused and self._transport is not None:
            self._paused = False
            # Silence while we did not listen is not a stall.
            self.last_data_at = self._clock()
            self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # A cast, because uvloop's transports are not asyncio.Transport by inheritance.
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        """Parse one read and hand everything in it to the sink in one call."""
        if self._sink is None:
            # Nobody asked: this connection is out of step.
            self.abort()
            return
        self.last_data_at = self._clock()
        self._answered = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                self.fail(BackendFailure(FailureKind.PROTOCOL, str(error)))
                return
            # Whatever follows a complete response must not reach the next request.
            self._keep_alive = False
        if self._head is None:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self.fail(BackendFailure(FailureKind.PROTOCOL, "response head too large"))
            return
        self._deliver(self._head, self._sink)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange by what is known of it."""
        self._transport = None
        sink, self._keep_alive = self._sink, False
        if sink is None:
            return
        if self._head is not None and not self._framed and exc is None:
            # No length and no chunks: the end of the connection is the end of the body.
            self._complete = True
            self._deliver(self._head, sink)
        elif not self._answered and self._served:
            self._settle(None, complete=False)
        else:
            detail = repr(exc) if exc else "closed before the response was complete"
            self._settle(BackendFailure(FailureKind.RESET, detail))

    # Callbacks of httptools; they only note, because an exception here would be swallowed.

    def on_status(self, reason: bytes) -> None:
        """Note the reason phrase, which may come in pieces."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note one header; trailers, which come after the head, are dropped."""
        if self._head is None:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Note the head of a final response."""
        if self._complete:
            raise ValueError("a second response to one request")
        status = self._parser.get_status_code()
        if status >= 200:
            self._head = ResponseHead(status, self._reason, self._headers)
            self._framed = _is_framed(status, self._headers)

    def on_message_complete(self) -> None:
        """Note the end of the response, or forget an informational one."""
        if self._head is None:
            self._headers = []
            self._reason = b""
        else:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()

    def _deliver(self, head: ResponseHead, sink: ResponseSink) -> None:
        if not self._head_delivered:
            self._head_delivered = True
            sink.head_received(head, self)
        pieces = self._pieces
        if pieces or self._complete:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            sink.body_received(data, last=self._complete)
        if self._complete:
            self._served += 1
            self._settle(None)

    def _settle(self, failure: Exception | None, *, complete: bool = True) -> None:
        done, self._done, self._sink = self._done, None, None
        if done is None or done.done():
            return
        if failure is None:
            done.set_result(complete)
        else:
            done.set_exception(failure)


def _is_framed(status: int, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the response says itself where its body ends (RFC 9112, section 6.3)."""
    if status in (204, 304):
        return True
    for name, value in headers:
        match name:
            case b"content-length":
                return True
            case b"transfer-encoding" if value.lower().endswith(b"chunked"):
                return True
            case _:
                pass
    return False
