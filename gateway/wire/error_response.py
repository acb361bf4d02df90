"""Why a request failed -> what the client gets: status, headers, OpenAI-shaped body.

OpenAI clients retry 408, 409, 429 and 5xx by themselves, and obey `retry-after-ms`, `retry-after`
and `x-should-retry`: so each answer says whether, and when, trying again can help.
"""

import math
from enum import StrEnum
from typing import NamedTuple, assert_never

import msgspec

from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.events import FailureKind
from gateway.wire.openai_request import BadRequest

_RETRY_SOON_S = 1.0
"""Where trying again can help, but nobody forecast when."""


class ProtocolError(StrEnum):
    """Requests that never reach scheduling because of how they were sent."""

    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    BODY_TOO_SLOW = "body_too_slow"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    INTERNAL = "internal"


class ErrorAnswer(NamedTuple):
    """A whole HTTP answer; the writer adds Content-Length."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class _Error(NamedTuple):
    """`type` is vLLM's where it has one; `retry` says whether trying again can help."""

    status: int
    type: str
    message: str
    retry: bool = False
    param: str | None = None


def refusal_answer(
    reason: RefusalReason,
    *,
    retry_after_s: float | None = None,
    model: str = "",
) -> ErrorAnswer:
    """The answer to a request that was not admitted, or was given up.

    Args:
        reason: of the scheduler's Reject or Evict.
        retry_after_s: as the scheduler said; None means soon, where trying again can help at all.
        model: the client's model name.
    """
    return _answer(_refusal(reason, model), retry_after_s=retry_after_s)


def failure_answer(kind: FailureKind, *, retry_after_s: float | None = None) -> ErrorAnswer:
    """The answer when a server failed before the first byte of its answer reached the client."""
    return _answer(_failure(kind), retry_after_s=retry_after_s)


def protocol_answer(error: ProtocolError, *, detail: str = "") -> ErrorAnswer:
    """The answer to a request that was sent wrongly; `detail` is added to the message."""
    found = _protocol(error)
    return _answer(found._replace(message=f"{found.message} {detail}".rstrip()))


def bad_request_answer(error: BadRequest) -> ErrorAnswer:
    """The answer to a request with bad values."""
    return _answer(_Error(error.status, "BadRequestError", error.message, param=error.param))


def stream_error_event(reason: FailureKind | RefusalReason) -> bytes:
    """The end of a stream whose head was sent: an error event, then [DONE], as vLLM does it."""
    error = _failure(reason) if isinstance(reason, FailureKind) else _refusal(reason, "")
    return b"data: %b\n\ndata: [DONE]\n\n" % _body(error)


def _answer(error: _Error, *, retry_after_s: float | None = None) -> ErrorAnswer:
    headers = [(b"content-type", b"application/json")]
    if error.retry:
        wait_s = _RETRY_SOON_S if retry_after_s is None else max(0.001, retry_after_s)
        headers.append((b"retry-after", b"%d" % math.ceil(wait_s)))
        headers.append((b"retry-after-ms", b"%d" % math.ceil(wait_s * 1_000)))
    else:
        headers.append((b"x-should-retry", b"false"))
    return ErrorAnswer(error.status, tuple(headers), _body(error))


def _body(error: _Error) -> bytes:
    fields = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.status,
    }
    return msgspec.json.encode({"error": fields})


def _refusal(reason: RefusalReason, model: str) -> _Error:  # noqa: C901, PLR0911, PLR0912 (one case per reason)
    match reason:
        case RefusalReason.UNKNOWN_MODEL:
            message = f"The model `{model}` does not exist. GET /v1/models lists those that do."
            return _Error(404, "NotFoundError", message, param="model")
        case RefusalReason.NO_TARGET_MODEL:
            message = f"No server has a target model of `{model}`. Load one, or change the service."
            return _Error(404, "NotFoundError", message, param="model")
        case RefusalReason.NO_CAPACITY:
            message = "All servers are busy with requests that go first. Try again later."
            return _Error(429, reason, message, retry=True)
        case RefusalReason.QUEUE_FULL:
            return _Error(429, reason, "The queue is full. Try again later.", retry=True)
        case RefusalReason.DISPLACED:
            message = "The queue was full and a critical request took the place. Try again later."
            return _Error(429, reason, message, retry=True)
        case RefusalReason.OBJECTIVE_IMPOSSIBLE:
            message = "Not even an idle server meets the latency objective. Shorten the prompt."
            return _Error(429, reason, message)
        case RefusalReason.QUEUE_TIMEOUT:
            message = "No server had room before the queue timeout. Try again later."
            return _Error(503, reason, message, retry=True)
        case RefusalReason.NO_BACKEND:
            message = "No server for this model is up. Try again later."
            return _Error(503, reason, message, retry=True)
        case RefusalReason.PREEMPTED:
            message = "A critical request needed the server. Try again later."
            return _Error(503, reason, message, retry=True)
        case RefusalReason.ATTEMPTS_EXHAUSTED:
            message = "Every server that was tried failed before it answered. Try again later."
            return _Error(502, reason, message, retry=True)
        case RefusalReason.DEADLINE:
            message = "The request's deadline passed before its answer was complete."
            return _Error(504, reason, message)
        case RefusalReason.DRAINING:
            message = "The gateway is shutting down. Try again: another instance will answer."
            return _Error(503, reason, message, retry=True)
        case _:
            assert_never(reason)


def _failure(kind: FailureKind) -> _Error:  # noqa: PLR0911 (one case per reason)
    match kind:
        case FailureKind.CONNECT:
            return _Error(502, kind, "The server could not be reached. Try again.", retry=True)
        case FailureKind.RESET:
            return _Error(502, kind, "The server closed the connection. Try again.", retry=True)
        case FailureKind.TIMEOUT:
            message = "The server did not begin its answer in time. Try again later."
            return _Error(504, kind, message, retry=True)
        case FailureKind.OVERLOADED:
            return _Error(503, kind, "The server is overloaded. Try again later.", retry=True)
        case FailureKind.SERVER_ERROR:
            return _Error(502, kind, "The server had an internal error. Try again.", retry=True)
        case FailureKind.STALLED:
            message = "The server stopped in the midst of its answer. Try again later."
            return _Error(504, kind, message, retry=True)
        case FailureKind.STREAM_ERROR:
            message = "The server broke its answer off with an error. Try again."
            return _Error(502, kind, message, retry=True)
        case FailureKind.UNRESPONSIVE:
            message = "The server hangs: it was taken out before it answered. Try again."
            return _Error(504, kind, message, retry=True)
        case FailureKind.PROTOCOL:
            message = "The server's answer was not valid HTTP. Tell its operator."
            return _Error(502, kind, message, retry=True)
        case _:
            assert_never(kind)


def _protocol(error: ProtocolError) -> _Error:  # noqa: PLR0911 (one case per reason)
    match error:
        case ProtocolError.NOT_FOUND:
            return _Error(404, "NotFoundError", "There is nothing at this path.")
        case ProtocolError.METHOD_NOT_ALLOWED:
            return _Error(405, error, "This path does not take this method.")
        case ProtocolError.BODY_TOO_LARGE:
            return _Error(413, error, "The request's body is too large.")
        case ProtocolError.BODY_TOO_SLOW:
            return _Error(408, error, "The request's body did not arrive in time.", retry=True)
        case ProtocolError.UNSUPPORTED_MEDIA_TYPE:
            message = "Send application/json, or multipart/form-data for audio."
            return _Error(415, error, message)
        case ProtocolError.UNSUPPORTED_ENCODING:
            message = "The model cannot be read from a compressed body. Send it uncompressed."
            return _Error(415, error, message)
        case ProtocolError.UNAUTHORIZED:
            message = "A valid API key is needed: Authorization: Bearer <key>."
            return _Error(401, "AuthenticationError", message)
        case ProtocolError.FORBIDDEN:
            return _Error(403, "PermissionDeniedError", "This API key may not do this.")
        case ProtocolError.INTERNAL:
            message = "The gateway failed; its log tells more under this request's id. Try again."
            return _Error(500, "InternalServerError", message, retry=True)
        case _:
            assert_never(error)
