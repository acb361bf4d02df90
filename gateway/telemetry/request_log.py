"""The request log: one line of JSON per finished request, fit for any log collector.

Not the logging module: that costs several times as much per line, and writes on the hot path.
"""

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO

import msgspec

from gateway.telemetry.json_text import encode_json
from gateway.telemetry.request_record import RequestRecord


class RequestLog:
    """Collects lines until somebody calls `flush`, about once a second and at the end.

    A request is never delayed and never fails because of its line. `flush` blocks while the
    output does, and may run in another thread.

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
        self._encode = msgspec.json.Encoder().encode
        self._second = -1
        self._date = b""
        self._lines: deque[bytes] = deque()
        self.lost_lines = 0

    def request_ended(self, record: RequestRecord) -> None:
        """Add the line of one request."""
        if len(self._lines) >= self._max_buffered_lines:
            self.lost_lines += 1
            return
        second, milliseconds = divmod(int(self._wall_clock() * 1e3), 1000)
        if second != self._second:
            self._second = second
            self._date = datetime.fromtimestamp(second, UTC).isoformat()[:19].encode()
        self._lines.append(
            b'{"time":"%b.%03d+00:00",%b,"tpot_s":%b,"ntpot_s":%b}\n'
            % (
                self._date,
                milliseconds,
                self._fields(record),
                self._encode(record.tpot_s),
                self._encode(record.ntpot_s),
            )
        )

    def _fields(self, record: RequestRecord) -> bytes:
        """The record as JSON without its braces."""
        if record.trace is not None:  # a named tuple, which msgspec would make an array of
            return encode_json(record)[1:-1]
        try:
            return self._encode(record)[1:-1]  # a third of what orjson takes for this dataclass
        except UnicodeEncodeError:
            return encode_json(record)[1:-1]

    def flush(self) -> None:
        """Write what has come together. Never raises; lines that do not fit are lost."""
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        try:
            self._out.write(b"".join(lines))
            self._out.flush()
        except (OSError, ValueError):  # ValueError: the output was closed
            self.lost_lines += len(lines)
