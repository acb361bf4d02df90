"""The client's side of one request: response bytes written straight to its transport."""

from http import HTTPStatus
from typing import Final

from gateway.server.backend_connection import ReadFlow
from gateway.server.client_request import ClientRequest
from gateway.server.client_socket import reset
from gateway.wire.error_response import ErrorAnswer

_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}
_LAST_CHUNK: Final = b"0\r\n\r\n"
_BODILESS: Final = (204, 304)

JSON_HEADER: Final = b"content-type: application/json\r\n"
"""Header line of a JSON body."""


class ClientChannel:
    """Writes one response: `open`, then `write` until `last`; or `send` for a small one.

    The head is held until the first `write`, so that head and first bytes leave in one packet,
    and so that an attempt that dies before its first byte can still become another answer.
    """

    __slots__ = (
        "_chunked",
        "_connection",
        "_head",
        "_keep_alive",
        "_mute",
        "_request",
        "_until_close",
        "complete",
        "started",
        "status",
    )

    def __init__(self, request: ClientRequest) -> None:
        self._request = request
        self._connection = request.connection
        self._keep_alive = request.keep_alive
        self._head = b""
        self._chunked = False
        self._until_close = False
        self._mute = request.method == "HEAD"
        self.status = 0
        """Status of the response, 0 until `open`."""
        self.started = False
        """Whether bytes of the response have been written."""
        self.complete = False
        """Whether the response has been written to its end."""

    def open(self, status: int, headers: bytes, *, length: int | None, reason: bytes = b"") -> None:
        """Choose the framing and note the head.

        Args:
            status: a final status.
            headers: complete lines, each ended by CRLF; none about length, transfer coding or
                connection.
            length: bytes of the body, or None if they are not known yet.
            reason: reason phrase; the usual one if empty.
        """
        http_11 = self._request.http_11
        self.status = status
        if reason:
            line = b"HTTP/1.1 %d %b\r\n" % (status, reason)
        else:
            line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status
        framing = b""
        if status in _BODILESS:
            self._mute = True
        elif length is not None:
            framing = b"content-length: %d\r\n" % length
        elif http_11:
            self._chunked = True
            framing = b"transfer-encoding: chunked\r\n"
        else:
            self._until_close = True
            self._keep_alive = False
        if not self._keep_alive:
            framing += b"connection: close\r\n"
        elif not http_11:
            framing += b"connection: keep-alive\r\n"
        self._head = b"%b%b%b\r\n" % (line, headers, framing)

    def write(self, data: bytes, *, last: bool) -> None:
        """Write body bytes in one go; the head goes in front of the first ones."""
        if self._mute:
            framed = b""
        elif self._chunked:
            framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            if last:
                framed += _LAST_CHUNK
        else:
            framed = data
        transport = self._connection.transport
        if transport is None or transport.is_closing():
            return  # the client has left, and the handler is being cancelled
        if not self.started:
            self.started = True
            self._request.answered = True
            framed = self._head + framed
            self._head = b""
        self.complete = last
        transport.write(framed)

    def send(self, status: int, headers: bytes, body: bytes) -> None:
        """Write a whole small response."""
        self.open(status, headers, length=len(body))
        self.write(body, last=True)

    def send_answer(self, answer: ErrorAnswer, headers: bytes = b"") -> None:
        """Write an error answer, with `headers` (complete lines) besides its own."""
        lines = b"".join([b"%b: %b\r\n" % header for header in answer.headers])
        self.send(answer.status, headers + lines, answer.body)

    def send_continue(self) -> None:
        """Ask the client for the body it announced with `Expect: 100-continue`."""
        transport = self._connection.transport
        if transport is not None and not transport.is_closing():
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def close_after(self) -> None:
        """Close the connection after this response (before `open`: say so in the head)."""
        self._keep_alive = False

    @property
    def congested(self) -> bool:
        """Whether the client has yet to read what was written, more than its buffer takes."""
        return self._connection.writing_paused

    def abort(self) -> None:
        """Reset the connection, so that what was sent cannot pass for a whole response."""
        self._keep_alive = False
        transport = self._connection.transport
        if transport is not None:
            reset(transport)

    def feed_from(self, flow: ReadFlow | None) -> None:
        """Let `flow` be paused while the client does not read."""
        self._connection.feed_from(flow)

    def end(self) -> bool:
        """Whether the connection may carry another request; cuts off what is not complete."""
        if not self.complete:
            self._keep_alive = False
            if self._until_close:
                # An orderly close would pass for the end of the body.
                self.abort()
        return self._keep_alive
