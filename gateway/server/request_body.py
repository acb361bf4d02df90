"""Reading a client's body: cheap checks first, then bounded in bytes and in time."""

import asyncio
import zlib
from collections.abc import Callable
from typing import Final

from gateway.server.client_channel import ClientChannel
from gateway.server.client_request import BodyBroken, ClientRequest
from gateway.server.options import FrontEndOptions
from gateway.wire.error_response import ErrorAnswer, ProtocolError, protocol_answer
from gateway.wire.openai_request import BadRequest

_WINDOW_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's `wbits` by content coding."""


class Refused(Exception):  # noqa: N818 (an answer to the client, not an error of ours)
    """The request is answered without asking a server: `answer` is what the client gets."""

    def __init__(self, answer: ErrorAnswer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class ReceivedBody:
    """A body as received, and readable; both are the same object if it was not compressed."""

    __slots__ = ("readable", "received")

    def __init__(self, received: bytes, readable: bytes) -> None:
        """Take both."""
        self.received = received
        self.readable = readable


async def read_body(
    request: ClientRequest,
    channel: ClientChannel,
    options: FrontEndOptions,
    hold: Callable[[int], None] = lambda _: None,
) -> ReceivedBody:
    """Read the whole body of a request.

    Args:
        request: whose body.
        channel: of the same request.
        options: the limits.
        hold: told of the bytes of each piece before it is kept; raises Refused if that is too much.

    Raises:
        Refused: too large, too slow, or compressed in a way that cannot be looked into.
        BadRequest: not framed, or not compressed, as its headers say.
    """
    limit = options.max_body_bytes
    length = request.content_length
    if length is not None and length > limit:
        raise Refused(_too_large(limit))
    coding = (request.header(b"content-encoding") or "").strip().lower()
    if coding not in ("", "identity") and coding not in _WINDOW_BITS:
        detail = f"Or use one of: {', '.join(_WINDOW_BITS)}."
        answer = protocol_answer(ProtocolError.UNSUPPORTED_ENCODING, detail=detail)
        raise Refused(answer)
    expected = request.header(b"expect")
    if expected is not None:
        if expected.lower() != "100-continue":
            raise BadRequest(f"Expect: {expected} is not supported.", status=417)
        if request.http_11:  # older clients know no 1xx (RFC 9110, 10.1.1)
            channel.send_continue()
    if request.body.complete:
        received = request.body.take()
        if len(received) > limit:
            raise Refused(_too_large(limit))
        hold(len(received))
    else:
        received = await _read_rest(request, hold, limit=limit, timeout_s=options.body_timeout_s)
    if coding in _WINDOW_BITS:
        readable = _decompressed(received, _WINDOW_BITS[coding], limit)
        hold(len(readable))
        return ReceivedBody(received, readable)
    return ReceivedBody(received, received)


async def _read_rest(
    request: ClientRequest, hold: Callable[[int], None], *, limit: int, timeout_s: float
) -> bytes:
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            while piece := await request.body.more():
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    raise Refused(_too_large(limit))
                hold(len(piece))
    except TimeoutError:
        raise Refused(protocol_answer(ProtocolError.BODY_TOO_SLOW)) from None
    except BodyBroken:
        raise BadRequest("The body does not end as its headers say.") from None
    return b"".join(pieces)


def _decompressed(received: bytes, window_bits: int, limit: int) -> bytes:
    """Decompress at most `limit` bytes: a small body must not become a huge one."""
    decompressor = zlib.decompressobj(window_bits)
    try:
        readable = decompressor.decompress(received, limit + 1)
    except zlib.error:
        raise BadRequest("The body is not compressed as Content-Encoding says.") from None
    if len(readable) > limit:
        raise Refused(_too_large(limit))
    if not decompressor.eof:
        raise BadRequest("The compressed body is cut off.")
    return readable


def _too_large(limit: int) -> ErrorAnswer:
    detail = f"At most {limit} bytes are taken."
    return protocol_answer(ProtocolError.BODY_TOO_LARGE, detail=detail)
