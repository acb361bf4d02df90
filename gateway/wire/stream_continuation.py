"""A streamed answer that one server began and another one ends.

The first server is asked for token ids (`return_token_ids`, vLLM 0.10.2 and later). When its stream
breaks, the next one gets `prompt = prompt ids + ids so far` at /v1/completions, and what it says is
turned into the events that the client was getting: same id, no text lost, none repeated.
"""

import re
from typing import Final

import msgspec

from gateway.wire.answer_so_far import AnswerSoFar
from gateway.wire.error_response import blames_request
from gateway.wire.json_shapes import StreamEvent
from gateway.wire.stream_rewrite import MAX_HELD_BYTES
from gateway.wire.whole_lines import WholeLines

RESUME_PATH: Final = "/v1/completions"
_IDS: Final = re.compile(rb'("(?:prompt_)?token_ids":\s*)\[[0-9,\s]*\]')
"""As a member. Inside a string its quotes would be escaped."""
_EVENT: Final = msgspec.json.Decoder(StreamEvent)


class ObservedStream:
    """The first server's stream passes through it: observed, without its break.

    Token ids are left out. For a client that wants them they wait until their text has come: after
    a break the next server says those again that have none, and it may say others.
    """

    def __init__(self, answer: AnswerSoFar) -> None:
        """Tell `answer` what the client gets."""
        self._answer = answer
        self._lines = WholeLines(self._line, MAX_HELD_BYTES)
        self._broken = False
        self._waiting = bytearray()
        """Lines with ids whose text has not come, for a client that wants them."""

    def feed(self, data: bytes) -> bytes:
        """The next bytes of the stream -> those that are ready for the client."""
        return self._lines.feed(data)

    def flush(self) -> bytes:
        """What is held is part of an event that never came: nothing for the client."""
        self._lines.flush()
        return b""

    def _line(self, line: bytes) -> bytes:
        if self._broken:
            return b""
        if line.startswith(b"data:"):
            payload = line[5:].strip()
            if payload == b"[DONE]":
                # A server that ends without a reason has left off.
                self._broken = not self._answer.finished
                if self._broken:
                    return b""
                self._answer.note_done()
            else:
                event = _decoded(payload, self._answer)
                if event is not None and event.error is not None:
                    # An error of the request itself is its answer.
                    self._answer.finished = _is_of_client(event.error)
                    self._broken = not self._answer.finished
                    return b"" if self._broken else self._with_ids(line)
                if event is not None:
                    self._answer.take_first(event)
        if self._answer.tells_ids:
            return self._with_ids(line)
        self._answer.note_line(line)
        return _IDS.sub(rb"\1null", line) if b'token_ids":' in line else line

    def _with_ids(self, line: bytes) -> bytes:
        waiting = self._waiting
        if self._answer.lacks_text and not self._answer.finished:
            waiting += line
            if len(waiting) <= MAX_HELD_BYTES:
                return b""
            self._answer.obstacle = "many tokens without text"
            line = b""
        ready = bytes(waiting) + line
        self._answer.note_line(ready[ready.rfind(b"\n", 0, -1) + 1 :])
        waiting.clear()
        return ready


class ResumedStream:
    """A later server's stream passes through it, and comes out in the form of the first one's.

    Attributes:
        told: whether the client got something of it.
        gave_up: whether something came that does not go with what the client has, or an error.
            What came after that was left out, too: the answer is not whole, whatever the server
            says.
    """

    def __init__(self, answer: AnswerSoFar) -> None:
        """Go on with `answer`."""
        answer.forget_unsaid()
        self._answer = answer
        self._said_before = answer.said
        self._lines = WholeLines(self._line, MAX_HELD_BYTES)
        self.told = False
        self.gave_up = False

    def feed(self, data: bytes) -> bytes:
        """The next bytes of the stream -> those that are ready for the client."""
        return self._lines.feed(data)

    def flush(self) -> bytes:
        """What is held is part of an event that never came: nothing for the client."""
        self._lines.flush()
        return b""

    def _line(self, line: bytes) -> bytes:
        if self.gave_up or not line.startswith(b"data:"):
            return b""
        payload = line[5:].strip()
        if payload == b"[DONE]":
            if not self._answer.finished:
                return b""
            self._answer.note_done()
            return self._as_event(b"data: [DONE]\n\n")
        event = _decoded(payload, self._answer)
        if event is None or event.error is not None:
            self.gave_up = True
            return b""
        translated = self._answer.translate(event, self._said_before)
        if translated is None:
            self.gave_up = True
            return b""
        return self._as_event(translated)

    def _as_event(self, text: bytes) -> bytes:
        if not text:
            return b""
        self.told = True
        before = self._answer.separator()
        self._answer.note_line(b"\n")
        return before + text


def _is_of_client(error: object) -> bool:
    """Whether the request is at fault: it would fail elsewhere, too."""
    code = error.get("code") if isinstance(error, dict) else None
    return isinstance(code, int) and blames_request(code)


def _decoded(payload: bytes, answer: AnswerSoFar) -> StreamEvent | None:
    try:
        return _EVENT.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        answer.obstacle = "an event of an unknown form"
        return None
