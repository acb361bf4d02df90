"""Usage of an answer in one piece, from a bounded part of its body."""

import re
from typing import Final

import msgspec

from gateway.scheduling.model import TokenUsage
from gateway.wire.json_shapes import Answer
from gateway.wire.token_usage import read_usage

KEPT_BYTES: Final = 1 << 16
"""How much of the body's end, and at most of its beginning, is kept."""
_USAGE: Final = re.compile(rb'"usage"\s*+:\s*+(\{[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\})')
"""The usage object, which nests once. Inside a JSON string the quote after `usage` is escaped."""


_ANSWER: Final = msgspec.json.Decoder(Answer)


class JsonAnswerScanner:
    """Watches one JSON body. A body over KEPT_BYTES is searched at its end, then its beginning."""

    def __init__(self, *, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._head = b""
        self._tail = bytearray()
        self._usage: TokenUsage | None = None

    def feed(self, data: bytes) -> None:
        """Watch the next bytes of the body (transfer encoding removed)."""
        self._usage = None
        self._tail += data
        if len(self._tail) > 2 * self._kept_bytes:
            self._head = self._head or bytes(self._tail[: self._kept_bytes])
            del self._tail[: -self._kept_bytes]

    @property
    def usage(self) -> TokenUsage:
        """Token counts, once the whole body has been fed; fields are None where it has none."""
        if self._usage is None:
            self._usage = self._read_usage()
        return self._usage

    def _read_usage(self) -> TokenUsage:
        try:
            if not self._head:
                return read_usage(_ANSWER.decode(self._tail).usage)
            found = [*_USAGE.findall(self._tail)[-1:], *_USAGE.findall(self._head)[-1:]]
            return read_usage(msgspec.json.decode(found[0]) if found else None)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return TokenUsage()
