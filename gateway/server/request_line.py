"""Whether a request line names HTTP.

llhttp takes RTSP (for AirPlay's sake) and ICE for it, and httptools does not tell which it was.
"""

import re

_OTHER_PROTOCOL = re.compile(rb" (?:RTSP|ICE)/[0-9]\.[0-9]\r\n")
_USUAL_LINE_BYTES = 256
_COMPARED_BYTES = 48
"""Of the line before its version: so that bodies and headers may speak of such lines."""
_KEPT_BYTES = 64
"""Of earlier pieces: enough for that, and for the rest of the line."""


class RequestLine:
    """Looks at the bytes of a connection beside its parser."""

    __slots__ = ("_earlier", "_is_http", "_others", "_piece")

    def __init__(self) -> None:
        """Nothing has come."""
        self._piece: memoryview = memoryview(b"")
        self._earlier = b""
        self._is_http = False
        self._others: list[bytes] | None = None
        """What comes before the names of other protocols in these bytes; None if not looked for."""

    def begins(self, piece: memoryview) -> None:
        """The next bytes begin with a request line."""
        self._piece = piece
        self._others = None
        head = bytes(piece[:_USUAL_LINE_BYTES])
        end = head.find(b"\r\n")
        self._is_http = head[max(0, end - 8) : max(0, end - 3)] == b"HTTP/"

    def goes_on(self, piece: memoryview) -> None:
        """The next bytes are of a head that began before."""
        self._earlier = (self._earlier + self._piece[-_KEPT_BYTES:])[-_KEPT_BYTES:]
        self.may_begin_in(piece)

    def may_begin_in(self, piece: memoryview) -> None:
        """The next bytes are of a body, and perhaps of a head after it."""
        self._piece = piece
        self._others = None

    def names_other(self, method: bytes, target: bytes) -> bool:
        """Whether another protocol follows method and target, as far as bytes have come."""
        if self._is_http or not target:
            return False
        if self._others is None:
            come = self._earlier + self._piece
            found = [each.start() for each in _OTHER_PROTOCOL.finditer(come)]
            self._others = [come[max(0, at - _COMPARED_BYTES) : at] for at in found]
        if not self._others:
            return False
        line = (b"%b %b" % (method, target))[-_COMPARED_BYTES:]
        return any(other.endswith(line) for other in self._others)

    def ended(self) -> None:
        """The head is whole: the next one is not known to be HTTP."""
        self._is_http = False
        self._earlier = b""
