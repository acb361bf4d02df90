"""From a client's bytes to its requests: httptools, and what must be clear about a head."""

from collections.abc import Callable
from typing import Final

import httptools

from gateway.server.client_request import ClientRequest, ClientSide
from gateway.server.options import ConnectionLimits
from gateway.server.request_line import RequestLine, may_end_chunks
from gateway.wire.error_response import (
    ErrorAnswer,
    ProtocolError,
    bad_request_answer,
    protocol_answer,
)
from gateway.wire.openai_request import BadRequest
from gateway.wire.request_framing import BodyFraming, body_framing

_MAX_FRAMING_BYTES: Final = 65_536
"""Of chunk extensions and trailers, without a byte of the body between them."""


class MalformedRequest(Exception):  # noqa: N818 (it is what the client sent)
    """Nothing that follows can be read.

    Attributes:
        answer: what the client is told.
        too_large: whether it is only too much.
    """

    def __init__(self, answer: ErrorAnswer, *, too_large: bool = False) -> None:
        super().__init__(answer.status)
        self.answer = answer
        self.too_large = too_large


class RequestParser:
    """Makes the requests of one connection.

    Attributes:
        in_head: whether a part of a head has come.
        incoming: the request whose body is not complete.
    """

    __slots__ = (
        "_begun",
        "_connection",
        "_fault",
        "_headers",
        "_hidden_body",
        "_http",
        "_limits",
        "_line",
        "_resumes_body",
        "_target",
        "_unfruitful",
        "in_head",
        "incoming",
    )

    def __init__(
        self,
        connection: ClientSide,
        begun: Callable[[ClientRequest], None],
        limits: ConnectionLimits,
    ) -> None:
        """Tell `begun` of each request as soon as its head is whole."""
        self._connection = connection
        self._begun = begun
        self._limits = limits
        self._http: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._line = RequestLine()
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._fault: MalformedRequest | None = None
        self._hidden_body = BodyFraming()
        self._resumes_body = False
        self._unfruitful = 0
        self.in_head = False
        self.incoming: ClientRequest | None = None

    def lacks_of_body(self, size: int) -> bool:
        """Whether so many bytes more belong to the body of the request that is coming in."""
        request = self.incoming
        if request is None or request.content_length is None or self._resumes_body:
            return False
        return request.content_length - request.body.received >= size

    def feed(self, data: memoryview) -> None:
        """Take the next bytes.

        Raises:
            MalformedRequest: they are no request, or could be read as more than one.
        """
        incoming = self.incoming
        received = 0 if incoming is None else incoming.body.received
        rest = data
        if incoming is not None:
            rest = self._rest_behind_chunks(incoming, data)
        elif self.in_head:
            self._line.goes_on(data)
        else:
            self._line.begins(data)
        while rest:
            assert self._http is not None
            try:
                self._http.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                self._refuse_upgrade()
                rest = rest[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                raise self._unreadable(error) from error
            else:
                break
        if self.in_head:
            assert self._http is not None
            if self._line.names_other(self._http.get_method(), self._target):
                raise MalformedRequest(bad_request_answer(_not_spoken()))
            self._bound(self._limits.header_bytes, len(data), _too_large())
        elif incoming is None or self.incoming is not incoming or incoming.body.received > received:
            self._unfruitful = 0
        else:
            fault = _malformed("There is more about the body's chunks than in them.")
            self._bound(_MAX_FRAMING_BYTES, len(data), fault)

    def _rest_behind_chunks(self, incoming: ClientRequest, data: memoryview) -> memoryview:
        """Feed what can only be chunks of the body; return the rest, at least a byte.

        Only so is it known where a request line behind the body begins.
        """
        length = incoming.content_length
        if length is not None:
            self._line.comes_behind(length - incoming.body.received, data)
            return data
        assert self._http is not None
        begin = 0
        for end in may_end_chunks(data):
            if end == len(data) or self.incoming is not incoming:
                break
            try:
                self._http.feed_data(data[begin:end])
            except httptools.HttpParserError as error:
                raise self._unreadable(error) from error
            begin = end
        rest = data[begin:]
        if self.incoming is incoming:
            self._line.comes_behind(len(rest), rest)
        else:
            self._line.begins(rest)
        return rest

    def _unreadable(self, error: httptools.HttpParserError) -> MalformedRequest:
        return self._fault or _malformed(f"Malformed request: {error}.")

    def _bound(self, limit: int, size: int, fault: MalformedRequest) -> None:
        """Count bytes that brought neither a head nor a body to its end."""
        self._unfruitful += size
        if self._unfruitful > limit:
            raise fault

    def close(self) -> None:
        """Forget everything; a body that is not complete is broken off."""
        self._http = None  # it refers back to us
        self.break_off()

    def break_off(self) -> None:
        """The rest of the body will not come."""
        incoming, self.incoming = self.incoming, None
        if incoming is not None:
            incoming.body.break_off()

    def _refuse_upgrade(self) -> None:
        """Go on in HTTP/1.1: an upgrade is an offer, which nobody must take (RFC 9110, 7.8).

        The parser sees no body in such a request; so another one, in its place, is told of it.
        """
        body, self._hidden_body = self._hidden_body, BodyFraming()
        if body.follows:
            self._resumes_body = True
            self._http = httptools.HttpRequestParser(self)
            self._http.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % body.header)

    # Callbacks of httptools; an exception in one ends the parsing.

    def on_message_begin(self) -> None:
        """Note that something of a request has come."""
        self.in_head = not self._resumes_body

    def on_url(self, piece: bytes) -> None:
        """Note the target, which may come in pieces."""
        if self.in_head:
            self._target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note one header, its name in lower case; trailers, which come late, are dropped."""
        if self.in_head:
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Make the request."""
        if self._resumes_body:
            self._resumes_body = False
            return
        self.in_head = False
        self._unfruitful = 0
        try:
            request = self.incoming = self._request()
        except BadRequest as fault:
            self._fault = MalformedRequest(bad_request_answer(fault))
            raise
        self._begun(request)

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        assert self.incoming is not None
        self.incoming.body.feed(piece)

    def on_message_complete(self) -> None:
        """Note the end of the body, unless the parser only believes so."""
        if not self._hidden_body.follows:
            request, self.incoming = self.incoming, None
            assert request is not None
            request.body.end()

    def _request(self) -> ClientRequest:
        http, target, headers = self._http, self._target, self._headers
        assert http is not None
        self._target, self._headers = b"", []
        limits = self._limits
        size = len(target) + sum([len(name) + len(value) for name, value in headers])
        if len(headers) > limits.header_count or size > limits.header_bytes:
            self._fault = _too_large()
            raise self._fault
        method, version = http.get_method().decode(), http.get_http_version()
        if version not in ("1.1", "1.0") or self._line.names_other(http.get_method(), target):
            raise _not_spoken()
        if method == "CONNECT":
            raise BadRequest("CONNECT is for proxies of another kind.", status=405)
        if not target.startswith(b"/"):
            _check_target(target)
        framing = body_framing(headers, http_11=version == "1.1")
        self._line.ended(framing)
        if http.should_upgrade():
            self._hidden_body = framing
        request = ClientRequest(
            self._connection,
            method,
            target.decode("latin-1"),
            headers,
            http_11=version == "1.1",
            keep_alive=http.should_keep_alive(),
        )
        request.content_length = framing.content_length
        return request


def _check_target(target: bytes) -> None:
    """A target is a path, `*`, or a whole URL (RFC 9112, section 3.2)."""
    if target != b"*":
        try:
            httptools.parse_url(target)
        except httptools.HttpParserError:
            raise BadRequest("The target of the request is not a valid URL.") from None


def _not_spoken() -> BadRequest:
    return BadRequest("HTTP/1.1 and HTTP/1.0 are spoken here.", status=505)


def _too_large() -> MalformedRequest:
    return MalformedRequest(protocol_answer(ProtocolError.HEADER_TOO_LARGE), too_large=True)


def _malformed(message: str) -> MalformedRequest:
    return MalformedRequest(bad_request_answer(BadRequest(message)))
