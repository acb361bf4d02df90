"""Where the body of a client's request ends: one way to read it, or the request is refused.

The parser refuses most of what is ambiguous (RFC 9112, section 6.3); this is the rest of it.
"""

from collections.abc import Iterable
from typing import NamedTuple

from gateway.wire.openai_request import BadRequest


class BodyFraming(NamedTuple):
    """How a body is framed.

    Attributes:
        content_length: as announced, or None.
        chunked: whether it comes in chunks.
    """

    content_length: int | None = None
    chunked: bool = False

    @property
    def follows(self) -> bool:
        """Whether there is a body."""
        return self.chunked or bool(self.content_length)

    @property
    def header(self) -> bytes:
        """The header that says so."""
        if self.chunked:
            return b"transfer-encoding: chunked"
        return b"content-length: %d" % (self.content_length or 0)


_ONCE = {
    b"host": "Host",
    b"content-length": "Content-Length",
    b"transfer-encoding": "Transfer-Encoding",
}
_SIZES = frozenset(map(len, _ONCE))


def body_framing(headers: Iterable[tuple[bytes, bytes]]) -> BodyFraming:
    """Read how the body is framed.

    Raises:
        BadRequest: it can be read in two ways, or the request names two hosts.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if len(name) in _SIZES and (lower := name.lower()) in _ONCE:
            if lower in found:
                raise BadRequest(f"{_ONCE[lower]} is given twice.")
            found[lower] = value
    length = found.get(b"content-length")
    coding = found.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise BadRequest("Content-Length and Transfer-Encoding exclude each other.")
        if coding.lower() != b"chunked":
            raise BadRequest("The only Transfer-Encoding that is taken is chunked.")
        return BodyFraming(chunked=True)
    if length is None:
        return BodyFraming()
    if not length.isdigit():
        raise BadRequest("Content-Length is no number.")
    return BodyFraming(int(length))
