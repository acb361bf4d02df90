"""Where the body of a client's request ends: one way to read it, or the request is refused.

The parser refuses most of what is ambiguous (RFC 9112, section 6.3); this is the rest of it.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

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


_ONCE: Final = {
    b"host": "Host",
    b"content-length": "Content-Length",
    b"transfer-encoding": "Transfer-Encoding",
}
_MOST_DIGITS: Final = 19


def body_framing(headers: Iterable[tuple[bytes, bytes]], *, http_11: bool = True) -> BodyFraming:
    """Read how the body is framed; older clients than `http_11` know no chunks, and no Host.

    Args:
        headers: names in lower case.
        http_11: whether the client speaks HTTP/1.1.

    Raises:
        BadRequest: it can be read in two ways, or the request does not name one host.
    """
    found = _found_once(headers)
    if http_11 and b"host" not in found:
        raise BadRequest("Host is missing.")
    length = found.get(b"content-length")
    coding = found.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise BadRequest("Content-Length and Transfer-Encoding exclude each other.")
        if coding.lower() != b"chunked":
            raise BadRequest("The only Transfer-Encoding that is taken is chunked.")
        if not http_11:
            raise BadRequest("HTTP/1.0 has no Transfer-Encoding.")
        return BodyFraming(chunked=True)
    if length is None:
        return BodyFraming()
    if not length.isdigit() or len(length) > _MOST_DIGITS:
        raise BadRequest("Content-Length is no number.")
    return BodyFraming(int(length))


def _found_once(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _ONCE:
            if name in found:
                raise BadRequest(f"{_ONCE[name]} is given twice.")
            found[name] = value
    return found
