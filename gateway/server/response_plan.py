"""What is to be done to a server's response before the client gets it."""

from typing import Protocol

from gateway.server.backend_connection import ResponseHead
from gateway.wire.stream_continuation import ResumedStream
from gateway.wire.stream_rewrite import ModelNameRewriter, UsageChunkFilter


class BodyChange(Protocol):
    """A body passes through it, piece by piece."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes, return those that are ready."""
        ...

    def flush(self) -> bytes:
        """Return what is still held when the body has ended."""
        ...


class ResponsePlan:
    """What to do to the response of one attempt.

    Attributes:
        request_id: sent as X-Request-Id.
        extra_headers: complete lines for the head.
        expects_finish: a stream of this request is whole only if an answer said why it ended.
        sent_model, shown_model: the model's name as sent to the server, and as the client knows
            it; the answer names the latter.
        hides_usage: take the chunk with the usage out again, because the client did not ask.
        stream_change: a stream that breaks can be continued by another server: it passes through
            this, and is not ended when it breaks.
        rest: that very change, where the client has the beginning of the answer already.
    """

    __slots__ = (
        "expects_finish",
        "extra_headers",
        "hides_usage",
        "request_id",
        "rest",
        "sent_model",
        "shown_model",
        "stream_change",
    )

    def __init__(  # noqa: PLR0913 - one a request, and no named tuple: compiled, that costs more
        self,
        *,
        request_id: str,
        sent_model: str,
        shown_model: str,
        extra_headers: bytes = b"",
        expects_finish: bool = False,
        hides_usage: bool = False,
        stream_change: BodyChange | None = None,
        rest: ResumedStream | None = None,
    ) -> None:
        """Take them."""
        self.request_id = request_id
        self.sent_model = sent_model
        self.shown_model = shown_model
        self.extra_headers = extra_headers
        self.expects_finish = expects_finish
        self.hides_usage = hides_usage
        self.stream_change = stream_change
        self.rest = rest

    def changes(self, head: ResponseHead, *, event_stream: bool) -> list[BodyChange]:
        """Make what the body must pass through; errors pass untouched."""
        changes: list[BodyChange] = []
        if head.status >= 400:
            return changes
        if self.stream_change is not None and event_stream:
            changes.append(self.stream_change)
        if self.hides_usage and event_stream:
            changes.append(UsageChunkFilter())
        if self.sent_model != self.shown_model:
            changes.append(
                ModelNameRewriter(self.sent_model, self.shown_model, streamed=event_stream)
            )
        return changes
