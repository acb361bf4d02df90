"""Usage of answers in one piece."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.model import TokenUsage
from gateway.wire.answer_scanner import JsonAnswerScanner
from tests.wire.recorded import answer_to, cut

CUTS = st.lists(st.integers(min_value=0), max_size=8)
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "x": {"cached_tokens": 1}}


def scan(*pieces: bytes, kept_bytes: int = 1 << 16) -> TokenUsage:
    scanner = JsonAnswerScanner(kept_bytes=kept_bytes)
    for piece in pieces:
        scanner.feed(piece)
    return scanner.usage


@given(CUTS)
def test_a_recorded_answer_tells_its_usage(cuts: list[int]) -> None:
    pieces = cut(answer_to("chat_nonstream"), cuts)

    assert scan(*pieces) == TokenUsage(prompt_tokens=19, completion_tokens=12)
    assert scan(*pieces, kept_bytes=400) == TokenUsage(prompt_tokens=19, completion_tokens=12)


def test_cached_tokens_are_read() -> None:
    assert scan(answer_to("opt_cached_tokens_2")).cached_tokens == 192


def test_a_long_answer_tells_its_usage_from_its_end() -> None:
    text = 'say "usage":{"prompt_tokens":9} ' * 5_000
    answer = json.dumps({"choices": [{"text": text}], "usage": USAGE, "prompt_logprobs": None})

    usage = scan(answer.encode())

    assert usage == TokenUsage(prompt_tokens=3, completion_tokens=4)


def test_a_long_answer_tells_its_usage_from_its_beginning() -> None:
    answer = json.dumps({"usage": USAGE, "results": ["x" * 99] * 5_000}).encode()

    assert scan(answer) == TokenUsage(prompt_tokens=3, completion_tokens=4)


def test_of_several_usages_in_a_long_answer_the_last_counts() -> None:
    inner = b'{"usage": {"prompt_tokens": 1}, "x": {"usage": {"prompt_tokens": 2}}}'

    for body in (b" " * 300 + inner, inner + b" " * 300):
        assert scan(body, kept_bytes=100).prompt_tokens == 2


def test_the_memory_kept_is_bounded() -> None:
    scanner = JsonAnswerScanner(kept_bytes=100)

    for _ in range(1_000):
        scanner.feed(b"x" * 150)

    assert len(scanner._head) + len(scanner._tail) <= 300


@pytest.mark.parametrize(
    "body",
    [b"", b"no json", b"[1]", b'{"usage":7}', b'{"usage":null}', b'{"x":1}', b"[" * 9_000],
)
def test_an_answer_without_usage_has_none(body: bytes) -> None:
    assert scan(body) == scan(body, kept_bytes=2) == TokenUsage()


def test_a_broken_usage_in_a_long_answer_is_none() -> None:
    assert scan(b"x" * 300 + b'"usage": {oops}', kept_bytes=100) == TokenUsage()


@given(st.lists(st.sampled_from([b'"usage"', b":", b"{", b"}", b'"']) | st.binary(), max_size=12))
def test_no_bytes_break_the_scanner(pieces: list[bytes]) -> None:
    scan(*pieces)
    scan(*pieces, kept_bytes=4)


def test_what_was_told_before_the_end_does_not_stay() -> None:
    body = json.dumps({"usage": USAGE}).encode()
    scanner = JsonAnswerScanner()
    scanner.feed(body[:5])
    assert scanner.usage == TokenUsage()
    scanner.feed(body[5:])
    assert [scanner.usage.prompt_tokens, scanner.usage.completion_tokens] == [3, 4]
    assert scanner.usage == scan(body)
