"""Each reason for an error, and what the client gets."""

import json
from typing import Any

import pytest

from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.events import FailureKind
from gateway.wire.error_response import (
    ErrorAnswer,
    ProtocolError,
    bad_request_answer,
    failure_answer,
    model_not_allowed_answer,
    protocol_answer,
    refusal_answer,
    stream_error_event,
)
from gateway.wire.openai_request import BadRequest
from gateway.wire.sse_scanner import SseScanner

REFUSALS = {
    RefusalReason.UNKNOWN_MODEL: 404,
    RefusalReason.NO_TARGET_MODEL: 404,
    RefusalReason.DEADLINE: 504,
    RefusalReason.NO_CAPACITY: 429,
    RefusalReason.QUEUE_FULL: 429,
    RefusalReason.DISPLACED: 429,
    RefusalReason.OBJECTIVE_IMPOSSIBLE: 429,
    RefusalReason.QUEUE_TIMEOUT: 503,
    RefusalReason.NO_BACKEND: 503,
    RefusalReason.PREEMPTED: 503,
    RefusalReason.DRAINING: 503,
    RefusalReason.ATTEMPTS_EXHAUSTED: 502,
}
FAILURES = {
    FailureKind.CONNECT: 502,
    FailureKind.RESET: 502,
    FailureKind.SERVER_ERROR: 502,
    FailureKind.STREAM_ERROR: 502,
    FailureKind.PROTOCOL: 502,
    FailureKind.OVERLOADED: 503,
    FailureKind.TIMEOUT: 504,
    FailureKind.STALLED: 504,
    FailureKind.UNRESPONSIVE: 504,
}
PROTOCOL_ERRORS = {
    ProtocolError.NOT_FOUND: 404,
    ProtocolError.METHOD_NOT_ALLOWED: 405,
    ProtocolError.BODY_TOO_SLOW: 408,
    ProtocolError.BODY_TOO_LARGE: 413,
    ProtocolError.UNSUPPORTED_MEDIA_TYPE: 415,
    ProtocolError.UNSUPPORTED_ENCODING: 415,
    ProtocolError.UNAUTHORIZED: 401,
    ProtocolError.FORBIDDEN: 403,
    ProtocolError.HEADER_TOO_LARGE: 431,
    ProtocolError.HEADER_TOO_SLOW: 408,
    ProtocolError.CONNECTIONS: 503,
    ProtocolError.CLIENT_CONNECTIONS: 429,
    ProtocolError.KEY_REQUESTS: 429,
    ProtocolError.KEY_TOKENS: 429,
    ProtocolError.CLIENT_IN_FLIGHT: 429,
    ProtocolError.GATEWAY_IN_FLIGHT: 503,
    ProtocolError.BODY_MEMORY: 503,
    ProtocolError.INTERNAL: 500,
}
FINAL = {
    RefusalReason.UNKNOWN_MODEL,
    RefusalReason.NO_TARGET_MODEL,
    RefusalReason.OBJECTIVE_IMPOSSIBLE,
    RefusalReason.DEADLINE,
}


def error_of(answer: ErrorAnswer) -> dict[str, Any]:
    body = json.loads(answer.body)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == answer.status
    assert body["error"]["message"].endswith(".")
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize("reason", RefusalReason)
def test_each_refusal_has_its_status(reason: RefusalReason) -> None:
    answer = refusal_answer(reason, model="m")

    assert answer.status == REFUSALS[reason]
    assert error_of(answer)["param"] == ("model" if answer.status == 404 else None)
    assert dict(answer.headers)[b"content-type"] == b"application/json"


@pytest.mark.parametrize("kind", FailureKind)
def test_each_failure_has_its_status(kind: FailureKind) -> None:
    answer = failure_answer(kind)

    assert answer.status == FAILURES[kind]
    assert error_of(answer)["type"] == kind
    assert dict(answer.headers)[b"retry-after"] == b"1"


@pytest.mark.parametrize("error", ProtocolError)
def test_each_protocol_error_has_its_status(error: ProtocolError) -> None:
    answer = protocol_answer(error, detail="The limit is 5 bytes.")

    assert answer.status == PROTOCOL_ERRORS[error]
    assert error_of(answer)["message"].endswith(" The limit is 5 bytes.")
    assert not error_of(protocol_answer(error))["message"].endswith(" ")


@pytest.mark.parametrize("reason", RefusalReason)
def test_a_client_is_told_whether_and_when_to_try_again(reason: RefusalReason) -> None:
    headers = dict(refusal_answer(reason, retry_after_s=2.0001).headers)

    if reason in FINAL:
        assert headers[b"x-should-retry"] == b"false"
        assert b"retry-after" not in headers
    else:
        assert b"x-should-retry" not in headers
        assert headers[b"retry-after"] == b"3"
        assert headers[b"retry-after-ms"] == b"2001"


def test_a_wait_is_never_less_than_a_second_in_whole_seconds() -> None:
    headers = dict(refusal_answer(RefusalReason.NO_CAPACITY, retry_after_s=0.0).headers)

    assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (b"1", b"1")


def test_without_a_forecast_the_wait_is_a_second() -> None:
    headers = dict(refusal_answer(RefusalReason.QUEUE_FULL).headers)

    assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (b"1", b"1000")


def test_a_401_names_the_scheme() -> None:
    assert (b"www-authenticate", b"Bearer") in protocol_answer(ProtocolError.UNAUTHORIZED).headers


def test_a_model_that_a_key_may_not_use_is_answered_like_one_that_is_not_there() -> None:
    answer = model_not_allowed_answer("m")

    assert answer.status == 404
    assert error_of(answer)["param"] == "model"
    assert answer.reason is RefusalReason.UNKNOWN_MODEL


def test_an_unknown_model_is_named_as_vllm_does_it() -> None:
    error = error_of(refusal_answer(RefusalReason.UNKNOWN_MODEL, model='no"pe'))

    assert error["message"].startswith('The model `no"pe` does not exist.')
    assert error["type"] == "NotFoundError"


def test_a_bad_request_keeps_its_status_and_names_the_field() -> None:
    answer = bad_request_answer(BadRequest("Too long.", status=413, param="prompt"))

    assert answer.status == 413
    assert error_of(answer) == {
        "message": "Too long.",
        "type": "BadRequestError",
        "param": "prompt",
        "code": 413,
    }


@pytest.mark.parametrize("reason", [*FailureKind, RefusalReason.PREEMPTED, RefusalReason.DRAINING])
def test_a_broken_stream_ends_with_an_error_event(reason: FailureKind | RefusalReason) -> None:
    scanner = SseScanner()
    ending = stream_error_event(reason)

    scanner.feed(ending)

    assert ending.startswith(b'data: {"error":{')
    assert ending.endswith(b"}}\n\ndata: [DONE]\n\n")

    assert scanner.done
    assert not scanner.finished
    assert scanner.error is not None
    expected = FAILURES[reason] if isinstance(reason, FailureKind) else REFUSALS[reason]
    assert scanner.error.code == expected
    assert scanner.error.message
