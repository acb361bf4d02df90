"""Whether a request line names HTTP.

llhttp takes RTSP (for AirPlay's sake) and ICE for it, and httptools does not tell which it was.
"""

import re
from collections.abc import Iterator
from typing import Final

from gateway.wire.request_framing import BodyFraming

_VERSION: Final = re.compile(rb" +(?:(HTTP)/|(?:RTSP|ICE)/[0-9]\.[0-9]\r\n)")
"""What follows a target; llhttp takes any number of spaces."""
_SPACES: Final = re.compile(rb" {2,}")
_HTTP: Final = b"HTTP/"
_LINE_END: Final = b"\r\n"
_HEAD_END: Final = b"\r\n\r\n"
"""That of the last chunk and its trailers, too."""
_LAST_CHUNK_END: Final = re.compile(rb"(?<![\s\S]{3})\n|\r\n\r\n")
"""It may have begun in earlier bytes."""
_USUAL_LINE_BYTES: Final = 256
_COMPARED_BYTES: Final = 48
"""Of a target."""
_KEPT_BYTES: Final = 96
"""Of earlier pieces: enough for that, the method and the version."""


class RequestLine:
    """Looks at the bytes of a connection beside its parser."""

    __slots__ = ("_body", "_come", "_earlier", "_from", "_is_http", "_piece")

    def __init__(self) -> None:
        """Nothing has come."""
        self._piece: memoryview = memoryview(b"")
        self._earlier = b""
        self._come: bytes | None = None
        """Both together, once they are needed."""
        self._from = 0
        """Where in them the line begins; with a `_body`, behind that and the head before it."""
        self._body: BodyFraming | None = None
        self._is_http = False

    def begins(self, piece: memoryview) -> None:
        """The next bytes begin with a request line."""
        self.comes_behind(0, piece)
        head = bytes(piece[:_USUAL_LINE_BYTES])
        end = head.find(b"\r\n")
        self._is_http = head[max(0, end - 8) : max(0, end - 3)] == _HTTP

    def goes_on(self, piece: memoryview) -> None:
        """The next bytes are of a head that began before."""
        earlier = self._all_come()
        earlier = _SPACES.sub(b" ", earlier[self._from :])[-_KEPT_BYTES:]
        self.comes_behind(0, piece)
        self._earlier = earlier

    def comes_behind(self, size: int, piece: memoryview) -> None:
        """So many of the next bytes are of a body; the request line, if it has come, is next."""
        self._piece = piece
        self._earlier = b""
        self._come = None
        self._from = size
        self._body = None

    def names_other(self, method: bytes, target: bytes) -> bool:
        """Whether another protocol follows method and target, as far as bytes have come."""
        if self._is_http or not target:
            return False
        come = self._all_come()
        end = target if len(target) <= _COMPARED_BYTES else target[-_COMPARED_BYTES:]
        at = come.find(end, self._from)
        while at >= 0:
            version = _VERSION.match(come, at + len(end))
            # Of a long one the beginning is not looked at, nor what comes before it.
            if version is not None and (
                end is not target or come[self._from : at].rstrip(b" ").endswith(method)
            ):
                self._from = version.end()
                self._is_http = version[1] is not None
                return not self._is_http
            at = come.find(end, at + 1)
        return False

    def ended(self, body: BodyFraming) -> None:
        """The head is whole, and followed by this; the next one is not known to be HTTP."""
        self._is_http = False
        self._body = body

    def _all_come(self) -> bytes:
        """The bytes that are kept; `_from` is a place in them then."""
        come = self._come
        if come is None:
            come = self._come = self._earlier + self._piece
        body = self._body
        if body is not None:
            self._body = None
            self._from = _end_of_body(come, come.find(_HEAD_END, self._from) + 4, body)
        return come


def may_end_chunks(data: memoryview) -> Iterator[int]:
    """Where in the next bytes of a body in chunks its end may be, from the first place on."""
    for found in _LAST_CHUNK_END.finditer(data):
        yield found.end()


def _end_of_body(come: bytes, at: int, framing: BodyFraming) -> int:
    """Where a whole body that begins at `at` ends; the parser has found no fault in it."""
    if not framing.chunked:
        return at + (framing.content_length or 0)
    while True:
        end = come.find(_LINE_END, at)
        size = int(come[at:end].partition(b";")[0], 16)
        if not size:
            return come.find(_HEAD_END, end) + 4
        at = end + 2 + size + 2
