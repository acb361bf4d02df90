"""Whether a request line names HTTP.

llhttp takes RTSP (for AirPlay's sake) and ICE for it, and httptools does not tell which it was.
"""

import re

_OTHER_PROTOCOL = re.compile(rb"(?:RTSP|ICE)/[0-9]\.[0-9]\r\n")
_HTTP = b"HTTP/"
_HEAD_END = b"\r\n\r\n"
_VERSION_BYTES = 10
_USUAL_LINE_BYTES = 256
_COMPARED_BYTES = 48
"""Of the line before its version."""
_KEPT_BYTES = 64
"""Of earlier pieces: enough for that, and for the version."""


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
        earlier = earlier[max(self._from, len(earlier) - _KEPT_BYTES) :]
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
        line = (b"%b %b " % (method, target))[-_COMPARED_BYTES:]
        at = come.find(line, self._from)
        while at >= 0:
            at += len(line)
            version = come[at : at + _VERSION_BYTES]
            if version.startswith(_HTTP):
                self._from = at
                self._is_http = True
                return False
            if _OTHER_PROTOCOL.match(version):
                return True
            at = come.find(line, at)  # a body spoke of it
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
