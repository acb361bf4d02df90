"""The request log: one line of JSON per finished request, fit for any log collector.

Not the logging module: that costs several times as much per line, and writes on the hot path.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

import msgspec

from gateway.telemetry.ended_requests import EndedRequests
from gateway.telemetry.json_text import encode_json
from gateway.telemetry.request_record import RequestRecord

_COMMA: Final = ord(",")
_LINE_END: Final = b"\n"


class UnbufferedOutput(Protocol):
    """Keeps nothing back, so that it is known what has been written: `io.RawIOBase`."""

    def write(self, data: bytearray | memoryview, /) -> int | None:
        """Write a beginning of the data; return its bytes, None if it would have to wait."""
        ...


class RequestLog:
    """Writes the lines of finished requests, as many at once as it is told of.

    A request never fails because of its line. Writing blocks while the output does: so little at a
    time that a pipe holds it, and that the processor's caches still have it.
    """

    def __init__(self, out: UnbufferedOutput, *, ended: EndedRequests) -> None:
        """Write what ends from now on to `out`, which stays the caller's."""
        self._out = out
        self._ended = ended
        self._encode_into = msgspec.json.Encoder().encode_into
        self._second = -1
        self._date = b""
        self._millisecond = -1
        self._begin = b""
        self._in_line = False
        self._lost_lines = 0
        ended.tell(self)

    @property
    def lost_lines(self) -> int:
        """Lines that could not be written: full disk, closed pipe."""
        self._ended.settle()
        return self._lost_lines

    def requests_ended(
        self, records: Sequence[RequestRecord], ended_at: Sequence[float], /
    ) -> None:
        """Write the lines of some requests. Never raises; lines that do not fit are lost."""
        lines, encode_into = bytearray(), self._encode_into
        for record, at in zip(records, ended_at, strict=True):
            millisecond = int(at * 1e3)
            if millisecond != self._millisecond:
                self._date_lines(millisecond)
            lines += self._begin
            brace_at = len(lines)
            try:
                encode_into(record, lines, brace_at)
            except UnicodeEncodeError:
                lines[brace_at:] = encode_json(record)
            # The record goes on with the object that the time began.
            lines[brace_at] = _COMMA
            lines += _LINE_END
        if self._in_line:
            lines[:0] = _LINE_END
        written = self._written(lines)
        if written < len(lines):
            # A line of which only the end is missing is whole: the next ones begin with it.
            whole = lines.count(_LINE_END, 0, written + 1) - self._in_line
            self._lost_lines += len(records) - whole
        if written:
            self._in_line = not lines.endswith(_LINE_END, 0, written)

    def _written(self, lines: bytearray) -> int:
        """Write lines as far as that goes; return the bytes."""
        written = 0
        rest = memoryview(lines)
        try:
            while rest:
                size = self._out.write(rest)
                if not size:
                    break
                written += size
                rest = rest[size:]
        except (OSError, ValueError):  # ValueError: the output was closed
            pass
        return written

    def _date_lines(self, millisecond: int) -> None:
        """Let lines begin with this time."""
        second, rest = divmod(millisecond, 1000)
        if second != self._second:
            self._second = second
            date = datetime.fromtimestamp(second, UTC).isoformat()[:19]
            self._date = b'{"time":"%b.' % date.encode()
        self._millisecond = millisecond
        self._begin = b'%b%03d+00:00"' % (self._date, rest)
