"""Marks in event streams: recorded ones, hostile ones, and any split of them."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.scheduling.model import TokenUsage
from gateway.wire import sse_scanner
from gateway.wire.sse_scanner import SseScanner, StreamError
from tests.wire.recorded import STREAMS, answer_to, cut, events_of

CUTS = st.lists(st.integers(min_value=0), max_size=12)
ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
TEXT = {"choices": [{"index": 0, "delta": {"content": "q"}, "finish_reason": None}]}
STOP = {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}]}


def scan(*pieces: bytes, max_event_bytes: int = 1 << 20) -> SseScanner:
    scanner = SseScanner(max_event_bytes=max_event_bytes)
    for piece in pieces:
        scanner.feed(piece)
    return scanner


def stream(*events: object) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)


def marks(scanner: SseScanner) -> tuple[Any, ...]:
    return (
        scanner.usage,
        scanner.first_token,
        scanner.finished,
        scanner.done,
        scanner.error,
    )


@pytest.mark.parametrize("name", STREAMS)
def test_recorded_streams_are_read_as_by_a_json_parser(name: str) -> None:
    body = answer_to(name)
    events = events_of(body)
    errors = [event["error"] for event in events if "error" in event]
    usages = [event["usage"] for event in events if "usage" in event]

    scanner = scan(body)

    assert scanner.done
    assert scanner.events == len(events)
    assert scanner.finished is not bool(errors)
    assert scanner.first_token is (len(events) > len(errors))
    if errors:
        assert scanner.error == StreamError(errors[-1]["code"], errors[-1]["message"])
    else:
        assert scanner.error is None
    if usages:
        assert scanner.usage.prompt_tokens == usages[-1]["prompt_tokens"]
        assert scanner.usage.completion_tokens == usages[-1]["completion_tokens"]
    else:
        assert scanner.usage == TokenUsage(events=len(events))


@given(st.sampled_from(STREAMS), CUTS)
def test_recorded_streams_are_read_the_same_however_they_are_split(
    name: str, cuts: list[int]
) -> None:
    body = answer_to(name)

    assert marks(scan(*cut(body, cuts))) == marks(scan(body))
    crlf = body.replace(b"\n", b"\r\n")
    assert marks(scan(*cut(crlf, cuts))) == marks(scan(body))


def test_cached_tokens_are_read() -> None:
    assert scan(answer_to("opt_cached_tokens_stream")).usage.cached_tokens == 192


LINES = st.sampled_from(
    [
        b"data: [DONE]",
        b"data:[DONE] ",
        b"data",
        b"data:",
        b"data: ",
        b": a comment",
        b"event: message",
        b"id: 7",
        b"",
        b'data: {"error":',
        b'data: "text"',
        b"data: not json",
        b'data: {"choices":7}',
        b'data: {"error":{"message":"m","code":503}}',
        b'data: {"error":null,"choices":[]}',
        b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
        b'data: {"choices":[],"usage":null}',
        b"data: " + json.dumps(ROLE).encode(),
        b"data:" + json.dumps(TEXT).encode(),
        b"data: " + json.dumps(STOP).encode(),
        b"data: " + b"x" * 250,
    ],
)
ENDS = st.sampled_from([b"\n", b"\n\n", b"\r\n", b"\r\n\r\n", b"\r", b"\n\n\n"])


@example([(b"data: [DONE]", b"\n"), (b"event: of more than the limit", b"\n\n")], [], 40)
@given(st.lists(st.tuples(LINES, ENDS), max_size=20), CUTS, st.sampled_from([40, 100, 1_000]))
def test_any_stream_is_read_the_same_however_it_is_split(
    lines: list[tuple[bytes, bytes]], cuts: list[int], max_event_bytes: int
) -> None:
    body = b"".join(line + end for line, end in lines)

    whole = scan(body, max_event_bytes=max_event_bytes)
    split = scan(*cut(body, cuts), max_event_bytes=max_event_bytes)
    bytewise = scan(*cut(body, list(range(len(body)))), max_event_bytes=max_event_bytes)

    assert marks(split) == marks(whole)
    assert marks(bytewise) == marks(whole)


def chunk(delta: object, finish: object = None, **more: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


CHUNKS = [
    chunk({"content": "q"}),
    chunk({"content": 'a "quoted" text, "error" and "usage": {"prompt_tokens": 9}'}),
    chunk({"content": '\n\ndata: {"choices":[{"finish_reason":null}]}'}),
    chunk({"content": '\\"finish_reason":"stop'}),
    chunk({"content": ""}, "stop"),
    chunk({"content": "q"}, usage=None),
    chunk({"content": "q"}, usage={"prompt_tokens": 3, "completion_tokens": 4}),
    chunk({"content": "q"}, error={"code": 500, "message": "m"}),
    chunk({"content": "q"}, error=None),
    {"choices": [{"delta": {"content": "q"}}]},
    {"choices": [{"delta": {}, "finish_reason": None}, {"delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 6}},
    {"error": {"code": 503, "message": "overloaded"}},
]


@given(st.lists(st.sampled_from(CHUNKS), max_size=8), CUTS, st.sampled_from([(",", ":"), None]))
def test_chunks_after_the_first_are_read_as_by_a_json_parser(
    chunks: list[dict[str, Any]], cuts: list[int], separators: tuple[str, str] | None
) -> None:
    body = b"".join(
        b"data: %b\n\n" % json.dumps(event, separators=separators).encode() for event in chunks
    )

    scanner = scan(stream(CHUNKS[0]), *cut(body, cuts))

    errors = [event["error"] for event in chunks if event.get("error")]
    usages = [event["usage"] for event in chunks if event.get("usage")]
    answered = [event for event in chunks if not event.get("error")]
    reasons = [choice.get("finish_reason") for event in answered for choice in event["choices"]]
    assert scanner.events == len(chunks) + 1
    assert scanner.finished is any(reasons)
    assert scanner.error == (
        StreamError(errors[-1]["code"], errors[-1]["message"]) if errors else None
    )
    assert scanner.usage.prompt_tokens == (usages[-1]["prompt_tokens"] if usages else None)


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_no_bytes_break_the_scanner(pieces: list[bytes]) -> None:
    scan(*pieces)
    scan(b"data: {", *pieces, b"\n\n")


@pytest.mark.parametrize(
    ("event", "is_output"),
    [
        (ROLE, False),
        ({"choices": [{"delta": {"role": "assistant", "content": None}}]}, False),
        ({"choices": [{"delta": {"role": "assistant"}}]}, False),
        ({"choices": [{"delta": {"role": "assistant", "content": "q"}}]}, True),
        ({"choices": [{"delta": {"role": "assistant", "reasoning": "q"}}]}, True),
        ({"choices": [{"delta": {"role": "assistant", "tool_calls": [{}]}}]}, True),
        ({"choices": [{"delta": {"role": "assistant"}, "finish_reason": "stop"}]}, True),
        ({"choices": [{"delta": {"content": ""}}]}, True),
        ({"choices": [{"delta": {"role": "assistant"}}, {"delta": {"content": "q"}}]}, True),
        ({"choices": [{"text": ""}]}, True),
        ({"choices": [], "usage": {"prompt_tokens": 1}}, False),
        ({"error": {"message": "m"}}, False),
        ({"text": "an unknown format"}, True),
        (["an unknown format"], True),
        ({"type": "response.created", "response": {"error": None}}, False),
        ({"type": "response.output_text.delta", "delta": "q"}, True),
        ({"type": "response.completed", "response": {}}, False),
        ({"type": "message_start", "message": {}}, False),
        ({"type": "content_block_delta", "delta": {"text": "q"}}, True),
        ({"type": "message_delta", "delta": {}}, False),
        ({"type": "ping"}, False),
        ({"type": "error", "message": "m"}, False),
    ],
)
def test_the_first_token_is_the_first_event_with_output(event: object, *, is_output: bool) -> None:
    assert scan(stream(event)).first_token is is_output


def test_a_first_token_stays() -> None:
    assert scan(stream(TEXT, ROLE)).first_token


def test_an_event_counts_when_it_is_complete() -> None:
    scanner = scan(stream(TEXT)[:-1])
    assert (scanner.events, scanner.first_token) == (0, False)

    scanner.feed(b"\n")
    assert (scanner.events, scanner.first_token) == (1, True)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_end_as_the_html_standard_allows(end: bytes) -> None:
    body = (stream(ROLE, TEXT, STOP) + b": end\n\ndata: [DONE]\n\n").replace(b"\n", end)
    expected = (TokenUsage(events=3), True, True, True, None)

    assert marks(scan(body)) == expected
    assert marks(scan(*cut(body, list(range(len(body)))))) == expected


def test_data_that_is_no_json_counts_as_output() -> None:
    for data in (b"data: {x}\n\n", b"data: text\n\n", b"data: \xff\n\n"):
        scanner = scan(data)

        assert (scanner.events, scanner.first_token) == (1, True)


def test_comments_and_empty_data_are_no_events() -> None:
    scanner = scan(b": ping\n\ndata:\n\ndata: \n\nevent: x\n\n\n\n")

    assert scanner.events == 0
    assert not scanner.first_token


def test_a_comment_beside_a_chunk_of_two_answers_is_no_event() -> None:
    two = b'data: {"choices":[{"index":0,"delta":{"content":"q"},"finish_reason":null},'
    two += b'{"index":1,"delta":{"content":"q"},"finish_reason":null}]}\n\n'

    scanner = scan(two, two + b": still here\n\n")

    assert scanner.usage.events == 2


def test_data_lines_of_one_event_belong_together() -> None:
    scanner = scan(b'event: x\ndata: {"choices":[],\ndata:"usage":{"prompt_tokens":5}}\n\n')

    assert scanner.usage == TokenUsage(prompt_tokens=5, events=1)


def test_a_line_end_cut_in_two_does_not_end_an_event() -> None:
    scanner = scan(b'data: {"choices":[],\r', b'\ndata:"usage":{"prompt_tokens":5}}\r', b"\n\r\n")

    assert scanner.usage == TokenUsage(prompt_tokens=5, events=1)


@pytest.mark.parametrize("excess", [0, 1])
def test_the_longest_event_is_still_looked_into(excess: int) -> None:
    event = stream({"error": {"message": "m"}})
    comment = b":" + b"x" * (len(event) - 3) + b"\n\n"
    limit = len(event) - 2 - excess

    for pieces in ([b"\n", event[:-1], b"\n", comment], [b"\n" + event + comment]):
        scanner = scan(*pieces, max_event_bytes=limit)

        assert (scanner.error is None) is bool(excess)
        assert scanner.events == 1 + excess


def test_text_that_looks_like_a_mark_is_no_mark() -> None:
    text = 'data: {"error":{"code":503}}\n\n"usage":{"prompt_tokens":9} "finish_reason":"stop"'
    top = {'"error': {"message": "m"}, "usage": {"prompt_tokens": 9}, "finish_reason": "stop"}
    choice = {"text": text, "logprobs": {"top_logprobs": [top, {"error": -1.5}]}}

    scanner = scan(stream({"choices": [choice]}))

    assert marks(scanner) == (TokenUsage(events=1), True, False, False, None)


def test_usage_null_in_every_chunk_is_no_usage() -> None:
    assert scan(stream(TEXT | {"usage": None})).usage == TokenUsage(events=1)


def test_of_continuous_usage_the_last_counts() -> None:
    counts = [{"usage": {"prompt_tokens": 3, "completion_tokens": n}} for n in range(4)]

    usage = scan(stream(*(TEXT | count for count in counts))).usage

    assert usage == TokenUsage(prompt_tokens=3, completion_tokens=3, events=4)


def test_usage_that_is_no_object_is_no_usage() -> None:
    assert scan(stream(TEXT | {"usage": 7})).usage == TokenUsage(events=1)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"message": "m", "code": 503}, StreamError(503, "m")),
        ({"message": "m", "code": "rate_limit"}, StreamError(None, "m")),
        ({"code": True}, StreamError(None, "")),
        ("m", StreamError(None, "m")),
        (7, StreamError(None, "")),
    ],
)
def test_an_error_event_keeps_code_and_message(error: object, expected: StreamError) -> None:
    assert scan(stream(TEXT, {"error": error})).error == expected


def test_an_error_and_the_end_mark_are_both_seen() -> None:
    scanner = scan(stream(TEXT, {"error": {"message": "m"}}), b"data: [DONE]\n\n")

    assert scanner.done
    assert scanner.error is not None
    assert not scanner.finished


def test_a_stream_of_the_responses_api_is_understood() -> None:
    usage = {"input_tokens": 3, "output_tokens": 4}
    scanner = scan(
        stream(
            {"type": "response.created", "response": {"error": None, "usage": None}},
            {"type": "response.output_text.delta", "delta": "q"},
            {"type": "response.completed", "response": {"error": None, "usage": usage}},
        ),
    )

    assert marks(scanner) == (TokenUsage(3, 4, None, 3), True, True, False, None)


def test_a_failed_stream_of_the_responses_api_is_understood() -> None:
    failed = {"type": "response.failed", "response": {"error": {"message": "m", "code": "x"}}}

    assert scan(stream(failed)).error == StreamError(None, "m")


def test_a_stream_of_the_messages_api_is_understood() -> None:
    scanner = scan(
        stream(
            {"type": "message_start", "message": {"usage": {"input_tokens": 3}}},
            {"type": "content_block_delta", "delta": {"text": "q"}},
            {"type": "message_delta", "usage": {"output_tokens": 4}},
            {"type": "message_stop"},
        ),
    )

    assert marks(scanner) == (TokenUsage(3, 4, None, 4), True, True, False, None)


def test_a_typed_error_event_is_an_error() -> None:
    event = {"type": "error", "code": 500, "message": "m"}

    assert scan(stream(event)).error == StreamError(500, "m")


def test_too_long_an_event_is_counted_and_not_kept() -> None:
    long = stream(TEXT | {"error": {"message": "x" * 500}})
    scanner = scan(max_event_bytes=100)

    for piece in cut(long + long, list(range(0, 1_200, 7))):
        scanner.feed(piece)
        assert len(scanner._carry) <= 110
    scanner.feed(stream(STOP))

    expected = (TokenUsage(events=3), True, True, False, None)
    assert marks(scanner) == expected
    assert marks(scan(long + long + stream(STOP), max_event_bytes=100)) == expected


@pytest.mark.interpreted
def test_the_text_behind_the_first_token_of_a_read_is_not_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded: list[bytes] = []
    real = sse_scanner._EVENT

    class Counting:
        def decode(self, payload: bytes) -> object:
            decoded.append(payload)
            return real.decode(payload)

    monkeypatch.setattr(sse_scanner, "_EVENT", Counting())
    text = b"data: %b\n\n" % json.dumps(TEXT, separators=(",", ":")).encode()

    scanner = scan(stream(ROLE) + text * 100)
    assert (scanner.events, len(decoded)) == (101, 2)
    scanner.feed(text * 100 + stream(STOP) + b"data: [DONE]\n\n")
    assert (scanner.events, len(decoded)) == (202, 3)
    assert scanner.finished
    assert scanner.done
