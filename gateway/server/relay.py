"""One attempt's response on its way from a server to the client, watched but not held up.

`body_received` runs inside the upstream connection's `data_received` and ends in one write to the
client's transport: no task, queue, timer or parsing beyond the scanner's marks per chunk.
"""

import math
from typing import Final

from gateway.runtime.scheduler_driver import Lease
from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.events import FailureKind
from gateway.scheduling.model import TokenUsage
from gateway.server.backend_connection import ReadFlow, ResponseHead
from gateway.server.client_channel import ClientChannel
from gateway.server.response_plan import BodyChange, ResponsePlan
from gateway.wire.answer_scanner import JsonAnswerScanner
from gateway.wire.error_response import blames_request, stream_error_event
from gateway.wire.http_headers import response_headers_to_client
from gateway.wire.sse_scanner import SseScanner

_MAX_HELD_BYTES: Final = 262_144
_OVERLOADED: Final = 503


class Relay:
    """The sink of one attempt.

    An answer that shows an overloaded or broken server (5xx, or a stream that begins with such an
    error event) is held back, so that another server can be tried; `release` sends it after all.
    """

    def __init__(self, *, channel: ClientChannel, lease: Lease, plan: ResponsePlan) -> None:
        self._channel = channel
        self._lease = lease
        self._plan = plan
        self._head: ResponseHead | None = None
        self._flow: ReadFlow | None = None
        self._stream: SseScanner | None = None
        self._answer: JsonAnswerScanner | None = None
        self._changes: list[BodyChange] = []
        self._held: list[bytes] | None = None
        self._held_bytes = 0
        self._ended = False
        self._discards = False
        self._may_go_on = False
        self.first_token_at: float | None = None
        """When the first token of a stream arrived."""

    @property
    def held(self) -> bool:
        """Whether a whole response waits for `release`, and the client has seen nothing of it."""
        return self._held is not None and self._ended and self._plan.rest is None

    @property
    def unseen(self) -> bool:
        """Whether the client has seen nothing and the scheduler no token: it may be retried."""
        rest = self._plan.rest
        # The scanner sees whole events; of the rest the client gets an event with its line.
        begun = self._channel.started if rest is None else rest.told
        return not begun and self.first_token_at is None

    @property
    def told_all(self) -> bool:
        """Whether the client has a whole answer, if not yet the last bytes on the wire.

        Many clients leave as soon as they have read [DONE].
        """
        stream = self._stream
        if stream is None or self._channel.complete:
            return self._channel.complete and self.failure is None
        ended = stream.finished and (stream.done or not self._plan.expects_finish)
        return ended and self._channel.started and self.failure is None

    @property
    def failure(self) -> FailureKind | None:
        """What a response that came to its end says against the server, or None."""
        assert self._head is not None
        stream = self._stream
        code = self._head.status
        rest = self._plan.rest
        if rest is not None and (
            self._discards or rest.gave_up or (stream is not None and stream.error)
        ):
            return FailureKind.STREAM_ERROR
        if stream is not None and code < 400:
            if stream.error is None:
                ended_well = stream.finished or not self._plan.expects_finish
                return None if ended_well else FailureKind.STREAM_ERROR
            code = stream.error.code or 500
            if code != _OVERLOADED:
                return None if blames_request(code) else FailureKind.STREAM_ERROR
        if code == _OVERLOADED:
            return FailureKind.OVERLOADED
        return FailureKind.SERVER_ERROR if _is_held(code) else None

    @property
    def ok(self) -> bool:
        """Whether the response is an answer, and not a refusal of the client's request."""
        stream = self._stream
        answered = self._head is not None and self._head.status < 400
        return answered and (stream is None or stream.error is None)

    @property
    def usage(self) -> TokenUsage:
        """Token counts of the response so far."""
        scanner = self._stream or self._answer
        return TokenUsage() if scanner is None else scanner.usage

    # ResponseSink

    def head_received(self, head: ResponseHead, flow: ReadFlow) -> None:
        """Decide by status and type how the body is watched."""
        self._head = head
        content_type = _value_of(head, b"content-type").lower()
        encoding = _value_of(head, b"content-encoding")
        if _is_held(head.status):
            self._held = []
        if encoding:
            pass  # nothing can be seen in it, let alone changed
        elif content_type.startswith(b"text/event-stream"):
            self._stream = SseScanner()
            self._changes = self._plan.changes(head, event_stream=True)
        elif content_type.startswith(b"application/json"):
            self._answer = JsonAnswerScanner()
            self._changes = self._plan.changes(head, event_stream=False)
        resumes = self._plan.rest is not None
        self._discards = resumes and (self._stream is None or head.status >= 400)
        self._may_go_on = self._plan.stream_change in self._changes
        self._flow = flow
        self._channel.feed_from(flow)

    def body_received(self, data: bytes, *, last: bool) -> None:
        """Watch and pass on what one read brought."""
        self._ended = last
        if self._discards:
            return
        stream = self._stream
        if stream is not None:
            stream.feed(data)
            assert self._flow is not None
            now = self._flow.last_data_at
            if stream.first_token and self.first_token_at is None:
                self.first_token_at = now
                self._lease.first_token()
            self._lease.progressed(stream.events, now=now)
            if (last or stream.error) and self._held is None and self.unseen and self.failure:
                if stream.error is None:
                    return  # it ended without an answer: nothing in it is worth passing on
                self._held = []
        elif self._answer is not None:
            self._answer.feed(data)
        if self._held is None:
            self._pass_on(data, last=last)
            return
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _MAX_HELD_BYTES:
            self._pass_on(self._take_held(), last=last)

    def release(self, *, retry_after_s: float | None) -> None:
        """Send the response that was held back; no other server took the request."""
        assert self._head is not None
        retry_after = b""
        if retry_after_s is not None and not _value_of(self._head, b"retry-after"):
            retry_after = b"retry-after: %d\r\n" % math.ceil(retry_after_s)
        if self._may_go_on:
            # Nobody goes on with it: its error is the client's answer, not a break to be hidden.
            self._may_go_on = False
            self._changes = [c for c in self._changes if c is not self._plan.stream_change]
        self._pass_on(self._take_held(), last=True, extra_headers=retry_after)

    def break_off(self, reason: FailureKind | RefusalReason) -> None:
        """End a response whose rest will not come, so that the client can tell.

        A stream of events ends with an error event, in good order. Anything else is left without
        its end: the caller closes the connection.
        """
        if self._stream is not None and self._channel.started and not self._channel.complete:
            # An empty line first: the server may have been cut off in the middle of an event.
            self._channel.write(b"\n\n" + stream_error_event(reason), last=True)

    @property
    def _is_cut_short(self) -> bool:
        """Whether a stream has told neither of an error nor that it is done, at its end."""
        stream = self._stream
        return stream is not None and stream.error is None and not stream.done

    @property
    def _holds_first_token(self) -> bool:
        """Whether a first token has come that is held back, and the client knows of nothing.

        The scheduler has it, so that no retry can follow: the answer has begun, and another server
        goes on if this one breaks.
        """
        begun = self.first_token_at is not None and self._may_go_on
        return begun and not self._channel.started

    def _take_held(self) -> bytes:
        held, self._held = self._held, None
        return b"".join(held or ())

    def _pass_on(self, data: bytes, *, last: bool, extra_headers: bytes = b"") -> None:
        for change in self._changes:
            data = change.feed(data) + (change.flush() if last else b"")
        if last and (self._may_go_on or self._is_cut_short) and self.failure is not None:
            last = False
        if not (data or last) and not self._holds_first_token:
            return
        if not self._channel.started:
            self._open(extra_headers)
        self._channel.write(data, last=last)

    def _open(self, extra_headers: bytes) -> None:
        head = self._head
        assert head is not None
        headers = response_headers_to_client(
            head.headers,
            request_id=self._plan.request_id,
            event_stream=self._stream is not None,
            keeps_length=False,
        )
        own = self._plan.extra_headers
        lines = b"\r\n".join([b": ".join(h) for h in headers if not _is_ours_to_say(h, own)])
        self._channel.open(
            head.status,
            b"%b\r\n%b%b" % (lines, own, extra_headers),
            # A stream may get an error event more than its server announced.
            length=None if self._changes or self._stream else _content_length(head),
            reason=head.reason,
        )


def _is_ours_to_say(header: tuple[bytes, bytes], own: bytes) -> bool:
    """Whether a header is about browsers of other origins: who may call is not the server's."""
    name, value = header
    if name == b"vary":
        return value.lower() == b"origin" and b"vary: Origin" in own
    return name.startswith(b"access-control-")


def _is_held(status: int) -> bool:
    """Whether a status shows an overloaded or broken server, so that another one is tried."""
    return status >= 500 and not blames_request(status)


def _value_of(head: ResponseHead, wanted: bytes) -> bytes:
    for name, value in head.headers:
        if name == wanted:
            return value
    return b""


def _content_length(head: ResponseHead) -> int | None:
    value = _value_of(head, b"content-length")
    return int(value) if value else None
