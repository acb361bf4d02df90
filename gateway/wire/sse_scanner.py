"""Marks in a response stream as it passes: events, first token, usage, error, end.

Nothing is held back or changed: the relay forwards the bytes and shows them to the scanner. The
marks of a stream of one format do not depend on how the bytes are split over feeds.

After the first token nearly every event is one more piece of text. Those are told by counting and
searching bytes, over all events of a read at once; text cannot deceive that, because a quote inside
text is escaped. Every other event (the first ones, the last ones, other formats) is decoded by
msgspec into the few fields that matter, everything else skipped.
"""

from typing import Final, NamedTuple

import msgspec

from gateway.scheduling.model import TokenUsage
from gateway.wire.json_shapes import MarkedChoice, MarkedEvent
from gateway.wire.token_usage import read_usage

MAX_EVENT_BYTES: Final = 1 << 20
"""Longer events are counted, but neither kept nor looked into."""
_CR: Final = ord("\r")
"""As an int: `in` with bytes first tries to take them for one, and that fails by an exception."""
_GOES_ON: Final = b'"finish_reason":null'
_LAST_TYPES: Final = frozenset(
    {"response.completed", "response.incomplete", "message_stop", "transcript.text.done"},
)
"""Types of the event that ends an answer well, in the formats that have no finish_reason."""


class StreamError(NamedTuple):
    """An error inside a stream, after its 200; `code` is a number (HTTP status in vLLM) or None."""

    code: int | None
    message: str


_EVENT: Final = msgspec.json.Decoder(MarkedEvent)


class SseScanner:
    """Watches one `text/event-stream` body.

    Attributes:
        events: data events so far, without [DONE] and events without data.
        first_token: whether output has arrived. Role announcements (a delta with `role` and
            nothing else but empty values) and chunks without choices are no output.
        finished: whether an answer said why it ended (`finish_reason`, or the last event's type).
        done: whether `[DONE]` came. vLLM sends it after errors too: it is no proof of success.
        error: the last error event, or None.
    """

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.events = 0
        self.first_token = False
        self.finished = False
        self.done = False
        self.error: StreamError | None = None
        self._usage = TokenUsage()
        self._max_event_bytes = max_event_bytes
        self._carry = bytearray()
        self._after_cr = False
        self._skipping = False

    @property
    def usage(self) -> TokenUsage:
        """Token counts as the newest usage in the stream says, and the events."""
        usage = self._usage
        return TokenUsage(
            usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, self.events
        )

    def feed(self, data: bytes) -> None:
        """Watch the next bytes of the body (transfer encoding removed)."""
        if self._after_cr or _CR in data:
            data = self._with_plain_line_ends(data)
        if self._carry or not data.endswith(b"\n\n"):
            data = self._complete_events(data)
        if self.first_token and (events := _plain_events(data)):
            self.events += events
            return
        self._scan_all(data)

    def _with_plain_line_ends(self, data: bytes) -> bytes:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _complete_events(self, data: bytes) -> bytes:
        """The events that `data` completes; the rest is carried to the next feed."""
        carry = self._carry
        searched = max(0, len(carry) - 1)
        carry += data
        cut = carry.rfind(b"\n\n", searched) + 2
        if cut < 2:
            # Up to two line ends, before and after the event, do not belong to it.
            if self._skipping or len(carry) > self._max_event_bytes + 2:
                self._skipping = True
                del carry[:-1]
            return b""
        complete = bytes(carry[:cut])
        del carry[:cut]
        if self._skipping:
            self._skipping = False
            self.events += 1
            complete = complete.partition(b"\n\n")[2]
        return complete

    def _scan_all(self, data: bytes) -> None:
        """Look at events one by one, but for those in their midst that are but text.

        A read that begins or ends an answer has many of these when the server is ahead of us. They
        are looked for once, so that the time stays linear.
        """
        at, stop = 0, data.find(b"\n\n", data.rfind(_GOES_ON)) + 2
        while at < len(data):
            if self.first_token and at < stop and (at or stop < len(data)):
                events = _plain_events(data[at:stop])
                self.events += events
                at = stop if events else at
                stop = 0
                continue
            end = data.find(b"\n\n", at)
            if end < 0:
                end = len(data)  # a line end more than the event needs
            self._scan(data[at:end])
            at = end + 2

    def _scan(self, event: bytes) -> None:
        event = event.lstrip(b"\n")
        if len(event) > self._max_event_bytes:
            self.events += 1
            return
        one_line = event.startswith(b"data: {") and b"\n" not in event
        payload = event[6:] if one_line or event == b"data: [DONE]" else _data_of(event)
        if not payload:
            return
        if payload == b"[DONE]":
            self.done = True
            return
        self.events += 1
        try:
            marks = _EVENT.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.first_token = True  # a format that we do not know: take it for output
            return
        self._mark(marks)

    def _mark(self, event: MarkedEvent) -> None:
        if event.usage is not None:
            self._note(event.usage)
        if event.error is not None:
            self.error = _stream_error(event.error)
        elif event.choices is None:
            self._mark_typed(event)
        else:
            for choice in event.choices:
                if choice.finish_reason is not None:
                    self.finished = True
                if not self.first_token and _carries_output(choice):
                    self.first_token = True

    def _mark_typed(self, event: MarkedEvent) -> None:
        """Marks of the formats whose events carry a `type`: Responses, Messages, transcripts."""
        kind = event.type
        if kind == "error":
            self.error = _stream_error({"code": event.code, "message": event.message})
        elif isinstance(kind, str) and kind in _LAST_TYPES:
            self.finished = True
        elif not isinstance(kind, str) or (kind.endswith("delta") and kind != "message_delta"):
            self.first_token = True
        wrapped = event.response or event.message
        if isinstance(wrapped, dict):
            self._note(wrapped.get("usage"))
            if kind == "response.failed":
                self.error = _stream_error(wrapped.get("error"))

    def _note(self, usage: object) -> None:
        """Keep the newest of each count: the Messages API tells them in two events."""
        new, old = read_usage(usage), self._usage
        self._usage = TokenUsage(
            old.prompt_tokens if new.prompt_tokens is None else new.prompt_tokens,
            old.completion_tokens if new.completion_tokens is None else new.completion_tokens,
            old.cached_tokens if new.cached_tokens is None else new.cached_tokens,
        )


def _plain_events(data: bytes) -> int:
    """How many events `data` is made of, if each is but one piece of an answer that goes on; or 0.

    Each is one line, has one finish_reason, which is null, and no other mark. To search for three
    keys one after the other costs less than one regular expression, which stops at every quote.
    """
    lines = data.count(b"\n")
    events = data.count(_GOES_ON)
    plain = (
        lines == 2 * events
        and data.startswith(b"data: {")
        and data.count(b'"finish_reason"') == events
        and data.find(b'"usage') < 0
        and data.find(b'"error') < 0
        and (events == 1 or data.count(b"\n\ndata: {") == events - 1)
    )
    return events if plain else 0


def _data_of(event: bytes) -> bytes:
    """The data of an event, its data lines joined (HTML standard, 9.2.6)."""
    lines = event.split(b"\n")
    values = [line[5:] for line in lines if line.startswith(b"data:")]
    return b"\n".join(value.removeprefix(b" ") for value in values).strip()


def _carries_output(choice: MarkedChoice) -> bool:
    """Whether a choice of a chunk is more than the announcement of its role."""
    delta = choice.delta
    if not isinstance(delta, dict) or "role" not in delta or choice.finish_reason is not None:
        return True
    return any(value for name, value in delta.items() if name != "role")


def _stream_error(error: object) -> StreamError:
    fields = error if isinstance(error, dict) else {"message": error}
    code, message = fields.get("code"), fields.get("message")
    return StreamError(
        code if isinstance(code, int) and not isinstance(code, bool) else None,
        message if isinstance(message, str) else "",
    )
