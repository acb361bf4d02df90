"""From a client's bytes to its requests: httptools, and what must be clear about a head."""

from collections.abc import Callable

import httptools

from gateway.server.client_request import ClientRequest, ClientSide
from gateway.wire.error_response import (
    ErrorAnswer,
    ProtocolError,
    bad_request_answer,
    protocol_answer,
)
from gateway.wire.openai_request import BadRequest
from gateway.wire.request_framing import BodyFraming, body_framing


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
        "_max_headers",
        "_resumes_body",
        "_target",
        "in_head",
        "incoming",
    )

    def __init__(
        self, connection: ClientSide, begun: Callable[[ClientRequest], None], *, max_headers: int
    ) -> None:
        """Tell `begun` of each request as soon as its head, of so many headers, is whole."""
        self._connection = connection
        self._begun = begun
        self._max_headers = max_headers
        self._http: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._fault: MalformedRequest | None = None
        self._hidden_body = BodyFraming()
        self._resumes_body = False
        self.in_head = False
        self.incoming: ClientRequest | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            MalformedRequest: they are no request, or could be read as more than one.
        """
        http = self._http
        assert http is not None
        try:
            http.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._refuse_upgrade(http, data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            raise self._fault or _malformed(BadRequest(f"Malformed request: {error}.")) from error

    def close(self) -> None:
        """Forget everything; a body that is not complete is broken off."""
        self._http = None  # it refers back to us
        self.break_off()

    def break_off(self) -> None:
        """The rest of the body will not come."""
        incoming, self.incoming = self.incoming, None
        if incoming is not None:
            incoming.body.break_off()

    def _refuse_upgrade(self, http: httptools.HttpRequestParser, rest: bytes) -> None:
        """Go on in HTTP/1.1: an upgrade is an offer, which nobody must take (RFC 9110, 7.8).

        The parser sees no body in such a request; so it is given the framing once more.
        """
        if http.get_method() == b"CONNECT":
            raise _malformed(BadRequest("CONNECT is not for this server.", status=405))
        body, self._hidden_body = self._hidden_body, BodyFraming()
        if body.follows:
            self._resumes_body = True
            http.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % body.header)
        self.feed(rest)

    # Callbacks of httptools; an exception in one ends the parsing.

    def on_message_begin(self) -> None:
        """Note that something of a request has come."""
        self.in_head = not self._resumes_body

    def on_url(self, piece: bytes) -> None:
        """Note the target, which may come in pieces."""
        if self.in_head:
            self._target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note one header; trailers, which come after the head, are dropped."""
        if self.in_head:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Make the request."""
        if self._resumes_body:
            self._resumes_body = False
            return
        self.in_head = False
        try:
            request = self.incoming = self._request()
        except BadRequest as fault:
            self._fault = _malformed(fault)
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
        if len(headers) > self._max_headers:
            self._fault = MalformedRequest(
                protocol_answer(ProtocolError.HEADER_TOO_LARGE), too_large=True
            )
            raise self._fault
        version = http.get_http_version()
        if version not in ("1.1", "1.0"):
            raise BadRequest("HTTP/1.1 and HTTP/1.0 are spoken here.", status=505)
        if not target.startswith(b"/"):
            _check_target(target)
        framing = body_framing(headers)
        if http.should_upgrade():
            self._hidden_body = framing
        request = ClientRequest(
            self._connection,
            http.get_method().decode(),
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


def _malformed(fault: BadRequest) -> MalformedRequest:
    return MalformedRequest(bad_request_answer(fault))
