"""What a client is told by its connection itself, before that is closed."""

from http import HTTPStatus
from types import MappingProxyType

from gateway.server.client_connections import CutReason
from gateway.wire.error_response import ErrorAnswer, ProtocolError, protocol_answer

CUT_ANSWERS = MappingProxyType(
    {
        CutReason.HEADER_TOO_SLOW: protocol_answer(ProtocolError.HEADER_TOO_SLOW),
        CutReason.HEADER_TOO_LARGE: protocol_answer(ProtocolError.HEADER_TOO_LARGE),
        CutReason.ALL_BUSY: protocol_answer(ProtocolError.CONNECTIONS),
        CutReason.PER_CLIENT: protocol_answer(ProtocolError.CLIENT_CONNECTIONS),
    }
)
"""Nothing is said to those that have asked for nothing."""


def whole_response(answer: ErrorAnswer) -> bytes:
    """A response that is the last one of its connection."""
    headers = b"".join([b"%b: %b\r\n" % header for header in answer.headers])
    return b"HTTP/1.1 %d %b\r\n%bcontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
        answer.status,
        HTTPStatus(answer.status).phrase.encode(),
        headers,
        len(answer.body),
        answer.body,
    )
