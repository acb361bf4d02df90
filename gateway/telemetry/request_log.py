"""The request log: one line of JSON per finished request, fit for any log collector.

Not the logging module: that costs several times as much per line, and writes on the hot path.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Final

import msgspec

from gateway.telemetry.json_text import encode_json
from gateway.telemetry.request_record import RequestRecord

_COMMA: Final = ord(",")
_ENCODED_AT_ONCE: Final = 64
"""Records made into lines in one go: one at a time, between requests, each would find the encoder's
code and tables gone from the processor's caches, and leave those of the next request colder."""


class RequestLog:
    """Collects lines until somebody calls `flush`, some times a second and at the end.

    A request is never delayed and never fails because of its line. `flush` blocks while the
    output does. A process that is killed outright loses what came together since the last one.

    Attributes:
        lost_lines: lines that could not be written: full disk, closed pipe, stuck output.
    """

    def __init__(
        self,
        out: IO[bytes],
        *,
        wall_clock: Callable[[], float],
        max_buffered_lines: int = 50_000,
    ) -> None:
        """Write to `out`, which stays the caller's; `wall_clock` dates the lines (UTC).

        `max_buffered_lines` is the bound where the output is stuck; the default takes 40 MB.
        """
        self._out = out
        self._max_buffered_lines = max_buffered_lines
        self._wall_clock = wall_clock
        self._encode_into = msgspec.json.Encoder().encode_into
        self._second = -1
        self._begin = b""
        self._records: list[RequestRecord] = []
        self._ended_at: list[float] = []
        self._lines = bytearray()
        self._count = 0
        self.lost_lines = 0

    def request_ended(self, record: RequestRecord) -> None:
        """Add the line of one request."""
        if self._count >= self._max_buffered_lines:
            self.lost_lines += 1
            return
        self._count += 1
        self._records.append(record)
        self._ended_at.append(self._wall_clock())
        if len(self._records) >= _ENCODED_AT_ONCE:
            self._make_lines()

    def _make_lines(self) -> None:
        records, ended_at = self._records, self._ended_at
        self._records, self._ended_at = [], []
        for record, at in zip(records, ended_at, strict=True):
            self._make_line(record, at)

    def _make_line(self, record: RequestRecord, ended_at: float) -> None:
        second, milliseconds = divmod(int(ended_at * 1e3), 1000)
        if second != self._second:
            self._second = second
            date = datetime.fromtimestamp(second, UTC).isoformat()[:19]
            self._begin = b'{"time":"%b.' % date.encode()
        lines = self._lines
        lines += b'%b%03d+00:00"' % (self._begin, milliseconds)
        brace_at = len(lines)
        try:
            self._encode_into(record, lines, brace_at)
        except UnicodeEncodeError:
            lines[brace_at:] = encode_json(record)
        # The record goes on with the object that the time began.
        lines[brace_at] = _COMMA
        lines += b"\n"

    def flush(self) -> None:
        """Write what has come together. Never raises; lines that do not fit are lost."""
        if not self._count:
            return
        self._make_lines()
        lines, count = self._lines, self._count
        self._lines, self._count = bytearray(), 0
        try:
            self._out.write(lines)
            self._out.flush()
        except (OSError, ValueError):  # ValueError: the output was closed
            self.lost_lines += count
