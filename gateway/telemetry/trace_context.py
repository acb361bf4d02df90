"""W3C Trace Context: which trace a request belongs to, in and out (https://www.w3.org/TR/trace-context/)."""

import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

TRACEPARENT = b"traceparent"
_VALUE = re.compile(rb"\A([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_SAMPLED = 1


class RemoteParent(NamedTuple):
    """The caller's span, as its header told."""

    trace_id: str
    span_id: str
    sampled: bool


class TraceContext(msgspec.Struct, frozen=True, gc=False):
    """The spans of one request; ids in hexadecimal.

    Attributes:
        trace_id: 32 digits, the caller's where there is one.
        span_id: 16 digits, of the request; `upstream_id` is of the exchange with its server.
        parent_id: the caller's span, or None.
        sampled: whether the spans are to be recorded.
    """

    trace_id: str
    span_id: str
    upstream_id: str
    parent_id: str | None
    sampled: bool

    @property
    def header(self) -> tuple[bytes, bytes]:
        """What is sent to the server, so that its spans hang below the exchange."""
        value = f"00-{self.trace_id}-{self.upstream_id}-{self.sampled:02x}"
        return TRACEPARENT, value.encode()


def parse_traceparent(headers: Iterable[tuple[bytes, bytes]]) -> RemoteParent | None:
    """The caller's span; None without a single valid header, as the standard wants it."""
    given = [value for name, value in headers if name == TRACEPARENT]
    if len(given) != 1:
        return None
    match = _VALUE.match(given[0].strip())
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    known = version == b"00" and rest is None
    later = version not in (b"00", b"ff")
    if not (known or later) or not trace_id.strip(b"0") or not span_id.strip(b"0"):
        return None
    return RemoteParent(trace_id.decode(), span_id.decode(), bool(int(flags, 16) & _SAMPLED))
