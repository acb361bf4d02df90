"""The request log: one line of JSON per finished request, fit for any log collector.

Not the logging module: that costs several times as much per line, and writes on the hot path.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO, Final

import msgspec

from gateway.telemetry.ended_requests import EndedRequests
from gateway.telemetry.json_text import encode_json
from gateway.telemetry.request_record import RequestRecord

_COMMA: Final = ord(",")


class RequestLog:
    """Collects lines until somebody calls `flush`, some times a second and at the end.

    A request is never delayed and never fails because of its line. `flush` blocks while the
    output does. A process that is killed outright loses what came together since the last one.
    """

    def __init__(
        self,
        out: IO[bytes],
        *,
        ended: EndedRequests,
        max_buffered_lines: int = 50_000,
    ) -> None:
        """Write what ends from now on to `out`, which stays the caller's.

        `max_buffered_lines` is the bound where the output is stuck; the default takes 40 MB.
        """
        self._out = out
        self._ended = ended
        self._max_buffered_lines = max_buffered_lines
        self._encode_into = msgspec.json.Encoder().encode_into
        self._second = -1
        self._date = b""
        self._millisecond = -1
        self._begin = b""
        self._lines = bytearray()
        self._count = 0
        self._lost_lines = 0
        ended.tell(self)

    @property
    def lost_lines(self) -> int:
        """Lines that could not be written: full disk, closed pipe, stuck output."""
        self._ended.settle()
        return self._lost_lines

    def requests_ended(
        self, records: Sequence[RequestRecord], ended_at: Sequence[float], /
    ) -> None:
        """Make the lines of some requests."""
        room = self._max_buffered_lines - self._count
        if len(records) > room:
            self._lost_lines += len(records) - room
            records = records[:room]
        self._count += len(records)
        lines, encode_into = self._lines, self._encode_into
        for record, at in zip(records, ended_at, strict=False):
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
            lines += b"\n"

    def _date_lines(self, millisecond: int) -> None:
        """Let lines begin with this time."""
        second, rest = divmod(millisecond, 1000)
        if second != self._second:
            self._second = second
            date = datetime.fromtimestamp(second, UTC).isoformat()[:19]
            self._date = b'{"time":"%b.' % date.encode()
        self._millisecond = millisecond
        self._begin = b'%b%03d+00:00"' % (self._date, rest)

    def flush(self) -> None:
        """Write what has come together. Never raises; lines that do not fit are lost."""
        self._ended.settle()
        if not self._count:
            return
        lines, count = self._lines, self._count
        self._lines, self._count = bytearray(), 0
        try:
            self._out.write(lines)
            self._out.flush()
        except (OSError, ValueError):  # ValueError: the output was closed
            self._lost_lines += count
