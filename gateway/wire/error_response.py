"""Why a request failed -> what the client gets: status, headers, OpenAI-shaped body.

OpenAI clients retry 408, 409, 429 and 5xx by themselves, and obey `retry-after-ms`, `retry-after`
and `x-should-retry`: so each answer says whether, and when, trying again can help.
"""

import math
from enum import StrEnum
from typing import Final, NamedTuple, assert_never

import msgspec

from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.events import FailureKind
from gateway.wire.openai_request import BadRequest

_RETRY_SOON_S: Final = 1.0
"""Where trying again can help, but nobody forecast when."""
_NOT_IMPLEMENTED: Final = 501
"""What vLLM answers to a request for something that its engine or model cannot do."""


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
    HEADER_TOO_LARGE = "header_too_large"
    HEADER_TOO_SLOW = "header_too_slow"
    KEY_REQUESTS = "key_requests"
    """The API key has used up its requests per minute."""
    KEY_TOKENS = "key_tokens"
    """The API key has used up its tokens per minute."""
    CONNECTIONS = "connections"
    """Every place for a connection is taken by one with a request."""
    CLIENT_CONNECTIONS = "connections_per_client"
    CLIENT_IN_FLIGHT = "client_in_flight"
    """One client, by key or address, has as many requests in flight as it may."""
    GATEWAY_IN_FLIGHT = "gateway_in_flight"
    """So have all clients together."""
    BODY_MEMORY = "body_memory"
    """The bodies of all requests in flight take as much memory as they may."""
    INTERNAL = "internal"


class ErrorAnswer(NamedTuple):
    """A whole HTTP answer; the writer adds Content-Length.

    `reason` is what logs and metrics call it, where it is not told otherwise.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    reason: ProtocolError | RefusalReason | None = None


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
    answer = _answer(_refusal(reason, model), retry_after_s=retry_after_s)
    return answer._replace(reason=reason)


def failure_answer(kind: FailureKind, *, retry_after_s: float | None = None) -> ErrorAnswer:
    """The answer when a server failed before the first byte of its answer reached the client."""
    return _answer(_failure(kind), retry_after_s=retry_after_s)


def protocol_answer(
    error: ProtocolError, *, detail: str = "", retry_after_s: float | None = None
) -> ErrorAnswer:
    """The answer to a request that was sent wrongly, or too often.

    Args:
        error: what was wrong.
        detail: is added to the message.
        retry_after_s: None means soon, where trying again can help at all.
    """
    found = _protocol(error)
    message = f"{found.message} {detail}".rstrip()
    answer = _answer(found._replace(message=message), retry_after_s=retry_after_s)
    if error is ProtocolError.UNAUTHORIZED:  # RFC 9110, 11.6.1: a 401 names the scheme
        answer = answer._replace(headers=(*answer.headers, (b"www-authenticate", b"Bearer")))
    return answer._replace(reason=error)


def model_not_allowed_answer(model: str) -> ErrorAnswer:
    """The answer to a key that may not use a model, whether or not there is one of the name.

    Both cases read the same, so that a key cannot find out what others use.
    """
    message = (
        f"The model `{model}` does not exist, or this API key may not use it."
        " GET /v1/models lists those it may use."
    )
    answer = _answer(_Error(404, "NotFoundError", message, param="model"))
    return answer._replace(reason=RefusalReason.UNKNOWN_MODEL)


def bad_request_answer(error: BadRequest) -> ErrorAnswer:
    """The answer to a request with bad values."""
    return _answer(_Error(error.status, "BadRequestError", error.message, param=error.param))


def blames_request(code: int) -> bool:
    """Whether a server's status says that the request is at fault: it would fail elsewhere, too."""
    return 400 <= code < 500 or code == _NOT_IMPLEMENTED


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
        # What a client sent may be quoted in it, and need not be UTF-8.
        "message": error.message.encode(errors="replace").decode(),
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
            message = f"No server has a model of `{model}`. Load one, or change the service."
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


def _protocol(error: ProtocolError) -> _Error:  # noqa: C901, PLR0911, PLR0912 (a case per reason)
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
            return _Error(403, "PermissionDeniedError", "This is not allowed.")
        case ProtocolError.HEADER_TOO_LARGE:
            return _Error(431, error, "The request's headers are too large, or too many.")
        case ProtocolError.HEADER_TOO_SLOW:
            return _Error(408, error, "The request's headers did not arrive in time.", retry=True)
        case ProtocolError.CONNECTIONS:
            message = "The gateway has too many connections. Try again later."
            return _Error(503, error, message, retry=True)
        case ProtocolError.CLIENT_CONNECTIONS:
            message = "This address has too many connections. Close some, or use them again."
            return _Error(429, error, message, retry=True)
        case ProtocolError.KEY_REQUESTS:
            message = "This API key has used up its requests per minute. Try again later."
            return _Error(429, error, message, retry=True)
        case ProtocolError.KEY_TOKENS:
            message = "This API key has used up its tokens per minute. Try again later."
            return _Error(429, error, message, retry=True)
        case ProtocolError.CLIENT_IN_FLIGHT:
            message = "This client has too many requests in flight. Wait for one of them to end."
            return _Error(429, error, message, retry=True)
        case ProtocolError.GATEWAY_IN_FLIGHT:
            message = "The gateway has too many requests in flight. Try again later."
            return _Error(503, error, message, retry=True)
        case ProtocolError.BODY_MEMORY:
            message = "The gateway holds too many large bodies at the moment. Try again later."
            return _Error(503, error, message, retry=True)
        case ProtocolError.INTERNAL:
            message = "The gateway failed; its log tells more under this request's id. Try again."
            return _Error(500, "InternalServerError", message, retry=True)
        case _:
            assert_never(error)
