"""Whether a request line names HTTP.

llhttp takes RTSP (for AirPlay's sake) and ICE for it, and httptools does not tell which it was.
"""

import re
from typing import Final

_VERSION: Final = re.compile(rb" +(?:(HTTP)/|(?:RTSP|ICE)/[0-9]\.[0-9]\r\n)")
"""What follows a target; llhttp takes any number of spaces."""
_SPACES: Final = re.compile(rb" {2,}")
_HTTP: Final = b"HTTP/"
_HEAD_END: Final = b"\r\n\r\n"
_USUAL_LINE_BYTES: Final = 256
_COMPARED_BYTES: Final = 48
"""Of a target."""
_KEPT_BYTES: Final = 96
"""Of earlier pieces: enough for that, the method and the version."""


class RequestLine:
    """Looks at the bytes of a connection beside its parser."""

    __slots__ = ("_behind_head", "_come", "_earlier", "_from", "_is_http", "_piece")

    def __init__(self) -> None:
        """Nothing has come."""
        self._piece: memoryview = memoryview(b"")
        self._earlier = b""
        self._come: bytes | None = None
        """Both together, once they are needed."""
        self._from = 0
        """Where in them the line may begin; if `_behind_head`, after the end of a head there."""
        self._behind_head = False
        self._is_http = False

    def begins(self, piece: memoryview) -> None:
        """The next bytes begin with a request line."""
        self.may_begin_in(piece)
        head = bytes(piece[:_USUAL_LINE_BYTES])
        end = head.find(b"\r\n")
        self._is_http = head[max(0, end - 8) : max(0, end - 3)] == _HTTP

    def goes_on(self, piece: memoryview) -> None:
        """The next bytes are of a head that began before."""
        earlier = self._all_come()
        earlier = _SPACES.sub(b" ", earlier[self._from :])[-_KEPT_BYTES:]
        self.may_begin_in(piece)
        self._earlier = earlier

    def may_begin_in(self, piece: memoryview) -> None:
        """The next bytes are of a body, and perhaps of a head after it."""
        self._piece = piece
        self._earlier = b""
        self._come = None
        self._from = 0
        self._behind_head = False

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

    def ended(self) -> None:
        """The head is whole: the next one is not known to be HTTP."""
        self._is_http = False
        self._behind_head = True

    def _all_come(self) -> bytes:
        """The bytes that are kept; `_from` is a place in them then."""
        come = self._come
        if come is None:
            come = self._come = self._earlier + self._piece
        if self._behind_head:
            self._behind_head = False
            self._from = max(self._from, come.find(_HEAD_END, self._from))
        return come
