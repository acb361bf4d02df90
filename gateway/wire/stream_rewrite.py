"""Changes in an answer as it passes: the client's model name; a usage chunk it did not ask for.

Only what may still change is held back: of a stream its unfinished line, of a body in one piece
what comes before its model. How the bytes are split over feeds does not matter.
"""

import json
import re
from collections.abc import Callable
from typing import Final

import msgspec

from gateway.scheduling.model import TokenUsage
from gateway.wire.json_shapes import StreamChunk
from gateway.wire.token_usage import read_usage
from gateway.wire.whole_lines import WholeLines

MAX_HELD_BYTES: Final = 1 << 20
"""A longer line passes unchanged, and so does a body whose model has not come by then."""
_TOKEN: Final = re.compile(
    rb'"(?:response|message)"\s*+:\s*+(\{)|"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]]',
    re.DOTALL,
)
"""A string or bracket; group 1: the bracket that opens what an event of the Responses or Messages
API wraps the answer in."""
_OPENING: Final = (b"{", b"[")
_CLOSING: Final = (b"}", b"]")


class _WholeBody:
    """Holds a body until `change` finds what it looks for, or `max_held_bytes` have come."""

    def __init__(self, change: Callable[[bytes], bytes | None], max_held_bytes: int) -> None:
        self._change = change
        self._max_held_bytes = max_held_bytes
        self._held = bytearray()
        self._next_look = 1
        self._passing = False

    def feed(self, data: bytes) -> bytes:
        """The next bytes of the body -> those that are ready."""
        if self._passing:
            return data
        self._held += data
        # Looking only when the length has doubled keeps many small feeds linear.
        if len(self._held) < min(self._next_look, self._max_held_bytes):
            return b""
        self._next_look = 2 * len(self._held)
        changed = self._look()
        self._passing = changed is not None or len(self._held) >= self._max_held_bytes
        if not self._passing:
            return b""
        ready = bytes(self._held) if changed is None else changed
        self._held.clear()
        return ready

    def flush(self) -> bytes:
        """What is still held."""
        changed = self._look()
        return bytes(self._held) if changed is None else changed

    def _look(self) -> bytes | None:
        head = bytes(self._held[: self._max_held_bytes])
        changed = self._change(head)
        return None if changed is None else changed + self._held[len(head) :]


class ModelNameRewriter:
    """Names the client's model in an answer that another model gave.

    Changes the value of the top-level `model` (in a stream also of the `response` or `message`
    that an event wraps) where it is the name that was sent to the server; nothing else, whatever
    the text of the answer says.

    Args:
        sent: the name that the server was asked for.
        shown: the name that the client asked for.
        streamed: the body is an event stream; else one JSON document.
        max_held_bytes: bound on what is held back.
    """

    def __init__(
        self,
        sent: str,
        shown: str,
        *,
        streamed: bool,
        max_held_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        names = sorted({json.dumps(sent), json.dumps(sent, ensure_ascii=False)})
        alternatives = b"|".join(re.escape(name.encode()) for name in names)
        self._member = re.compile(rb'"model"\s*:\s*(%b)' % alternatives)
        self._shown = json.dumps(shown, ensure_ascii=False).encode()
        self._body = (
            WholeLines(self._rename_line, max_held_bytes)
            if streamed
            else _WholeBody(self._rename, max_held_bytes)
        )

    def feed(self, data: bytes) -> bytes:
        """The next bytes of the body -> those that are ready for the client."""
        return self._body.feed(data)

    def flush(self) -> bytes:
        """What is still held when the body has ended."""
        return self._body.flush()

    def _rename_line(self, line: bytes) -> bytes:
        return (self._rename(line) if line.startswith(b"data:") else None) or line

    def _rename(self, document: bytes) -> bytes | None:
        """The document with its model renamed; None if it does not name the model."""
        depth, seen, in_envelope = 0, 0, False
        for member in self._member.finditer(document):
            for token in _TOKEN.finditer(document, seen, member.end()):
                if token[0][-1:] in _OPENING:
                    depth += 1
                    if depth == 2:
                        in_envelope = token[1] is not None
                elif token[0] in _CLOSING:
                    depth -= 1
            seen = member.end()
            # After a backslash the quote is inside a string: the end of some odd key.
            if document.endswith(b"\\", 0, member.start()):
                continue
            if depth == 1 or (depth == 2 and in_envelope):
                return document[: member.start(1)] + self._shown + document[seen:]
        return None


_CHUNK: Final = msgspec.json.Decoder(StreamChunk)


class UsageChunkFilter:
    """Takes the usage chunk (no choices) out of a stream whose client did not ask for it.

    Attributes:
        usage: what the chunk said, once it came.
    """

    def __init__(self, *, max_held_bytes: int = MAX_HELD_BYTES) -> None:
        self.usage: TokenUsage | None = None
        self._lines = WholeLines(self._drop_usage_chunk, max_held_bytes)
        self._after_chunk = False

    def feed(self, data: bytes) -> bytes:
        """The next bytes of the stream -> those that are ready for the client."""
        return self._lines.feed(data)

    def flush(self) -> bytes:
        """What is still held when the stream has ended."""
        return self._lines.flush()

    def _drop_usage_chunk(self, line: bytes) -> bytes:
        follows_chunk, self._after_chunk = self._after_chunk, False
        if follows_chunk and not line.strip():
            return b""
        if not line.startswith(b"data:") or b'"usage"' not in line:
            return line
        try:
            chunk = _CHUNK.decode(line[5:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return line
        if chunk.choices != [] or not isinstance(chunk.usage, dict):
            return line
        self.usage = read_usage(chunk.usage)
        self._after_chunk = True
        return b""
