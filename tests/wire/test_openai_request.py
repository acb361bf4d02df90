"""Parsing a request's body, and replacing values in it."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.openai_request import BadRequest, members_of, parse_json_request, rewrite_body
from gateway.wire.parsed_request import ParsedRequest, RequestKind
from tests.wire.recorded import request_of

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def parse(path: str = CHAT, **fields: object) -> ParsedRequest:
    return parse_json_request(path, json.dumps({"model": "base"} | fields).encode())


def refusal(body: bytes, path: str = CHAT) -> BadRequest:
    with pytest.raises(BadRequest) as refused:
        parse_json_request(path, body)
    return refused.value


def test_a_recorded_chat_request_is_understood() -> None:
    path, body = request_of("chat_stream_usage")

    parsed = parse_json_request(path, body)

    assert parsed.kind is RequestKind.CHAT
    assert parsed.body is body
    assert parsed.model == "base"
    assert parsed.streamed
    assert parsed.includes_usage
    assert parsed.generates
    assert not parsed.has_priority
    assert parsed.max_tokens == 12
    assert parsed.choices == 1
    assert parsed.prompt_tokens is None
    assert parsed.prompt_bytes == len(
        b'[{"role": "user", "content": "hello world, how are you today?"}]'
    )


def test_a_recorded_completion_of_token_ids_has_an_exact_prompt_length() -> None:
    parsed = parse_json_request(*request_of("comp_prompt_token_ids"))

    assert parsed.kind is RequestKind.COMPLETION
    assert parsed.prompt_tokens == 4
    assert not parsed.streamed
    assert not parsed.includes_usage


def test_each_prompt_of_a_batch_is_answered_n_times() -> None:
    assert parse_json_request(*request_of("comp_prompt_batch_strings")).choices == 2
    assert parse(COMPLETIONS, prompt=["a", "b", "c"], n=2).choices == 6


def test_a_batch_of_token_ids_counts_them_all() -> None:
    parsed = parse(COMPLETIONS, prompt=[[1, 2, 3], [4, 5]])

    assert (parsed.choices, parsed.prompt_tokens) == (2, 5)


def test_best_of_counts_for_completions_only() -> None:
    assert parse(COMPLETIONS, prompt="a", n=2, best_of=5).choices == 5
    assert parse(CHAT, n=2, best_of=5).choices == 2


@pytest.mark.parametrize(
    ("path", "fields", "expected"),
    [
        (CHAT, {}, None),
        (CHAT, {"max_tokens": 7}, 7),
        (CHAT, {"max_tokens": 7, "max_completion_tokens": 9}, 9),
        (CHAT, {"max_tokens": None}, None),
        (COMPLETIONS, {"prompt": "a"}, 16),
        (COMPLETIONS, {"prompt": "a", "max_tokens": None}, None),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 0}, 0),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 7, "max_completion_tokens": 9}, 7),
        ("/v1/responses", {"input": "a", "max_output_tokens": 5}, 5),
        ("/v1/messages", {"max_tokens": 5}, 5),
    ],
)
def test_the_bound_on_output_tokens_is_that_of_the_endpoint(
    path: str, fields: dict[str, Any], expected: int | None
) -> None:
    assert parse(path, **fields).max_tokens == expected


@pytest.mark.parametrize(
    "path",
    [
        "/v1/embeddings",
        "/v1/rerank",
        "/v2/rerank",
        "/v1/score",
        "/classify",
        "/tokenize",
        "/detokenize",
        "/pooling",
        "/v1/moderations",
        "/v1/messages/count_tokens",
    ],
)
def test_endpoints_that_write_no_tokens_do_not_generate(path: str) -> None:
    parsed = parse(path, input="x" * 2_000)

    assert not parsed.generates
    assert parsed.kind is RequestKind.OTHER
    assert parsed.prefix_blocks == ()


def test_a_prompt_is_found_under_the_name_it_has_at_the_endpoint() -> None:
    assert parse(CHAT, messages=[], prompt="x" * 99).prompt_bytes == len("[]")
    assert parse(COMPLETIONS, prompt="abc", messages=["x" * 99]).prompt_bytes == len('"abc"')
    assert parse("/v1/responses", input="abc", prompt={"id": "x" * 99}).prompt_bytes == len('"abc"')
    assert parse("/v1/messages", messages=[]).prompt_bytes == len("[]")
    assert parse("/tokenize", prompt="abc").prompt_bytes == len('"abc"')


def test_a_prompt_under_an_unknown_name_counts_as_the_whole_body() -> None:
    parsed = parse("/v1/rerank", query="a", documents=["b"])

    assert parsed.prompt_bytes == len(parsed.body)


def test_tools_and_system_text_are_part_of_the_prompt() -> None:
    bare = parse(CHAT, messages=[])
    full = parse(CHAT, messages=[], tools=[1], system="ab", instructions="abc")

    assert full.prompt_bytes - bare.prompt_bytes == len('[1]"ab""abc"')


def test_equal_beginnings_have_equal_prefix_blocks() -> None:
    first = {"role": "user", "content": "x" * 1_200}

    short = parse(CHAT, messages=[first]).prefix_blocks
    long = parse(CHAT, messages=[first, {"role": "user", "content": "y" * 1_200}]).prefix_blocks

    assert len(short) == 2
    assert len(long) == 4
    assert long[:2] == short


@pytest.mark.parametrize(
    "other",
    [{"cache_salt": "s"}, {"tools": [1]}, {"system": "s"}, {"instructions": "s"}],
)
def test_what_comes_before_a_prompt_separates_its_prefix(other: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "x" * 1_200}]

    plain = parse(CHAT, messages=messages).prefix_blocks
    separate = parse(CHAT, messages=messages, **other).prefix_blocks

    assert not set(plain) & set(separate)


def test_the_last_of_equal_keys_wins() -> None:
    assert parse_json_request(CHAT, b'{"model":"a","model":"b"}').model == "b"


def test_an_escaped_key_is_the_same_key() -> None:
    assert parse_json_request(CHAT, rb'{"m\u006fdel":"a"}').model == "a"


def test_nulls_are_defaults() -> None:
    parsed = parse(CHAT, stream=None, stream_options=None, n=None)

    assert not parsed.streamed
    assert not parsed.includes_usage
    assert parsed.choices == 1


def test_what_vllm_judges_passes() -> None:
    parse(CHAT, temperature=-3, priority="high", tools="?", messages=7, stop={"a": 1})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"model"',
        b"\xff",
        b'{"model":"a",}',
        b'{"model":"a"} x',
        b'{"model":"a","temperature":NaN}',
        b'{"model":"a","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"model":"\xff"}',
        request_of("err_malformed_json")[1],
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    refused = refusal(body)

    assert refused.status == refused.code == 400
    assert refused.param is None
    assert "body" in refused.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"model": ""}, "model"),
        ({"model": " "}, "model"),
        ({"model": "x" * 513}, "model"),
        ({"model": "a\r\nx-evil: 1"}, "model"),
        ({"model": "a\x00"}, "model"),
        ({"model": "a\x7f"}, "model"),
        ({"model": "a\u2028"}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 2}, "stream"),
        ({"stream_options": "all"}, "stream_options"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options"),
        ({"n": 0}, "n"),
        ({"n": 10_001}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": True}, "n"),
        ({"best_of": -1}, "best_of"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "a dozen"}, "max_tokens"),
        ({"max_tokens": 10**400}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_output_tokens": 1 << 31}, "max_output_tokens"),
    ],
)
def test_a_bad_value_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    refused = refusal(json.dumps({"model": "base"} | fields).encode())

    assert refused.status == 400
    assert refused.param == param
    assert f"`{param}`" in refused.message


def test_values_that_vllm_takes_for_numbers_and_flags_are_taken_for_them() -> None:
    request = parse(max_tokens=16.0, n="2", stream="true", stream_options={"include_usage": 1})

    assert (request.max_tokens, request.choices) == (16, 2)
    assert request.streamed
    assert request.includes_usage


def test_values_at_the_bounds_are_accepted() -> None:
    assert parse(n=1).choices == 1
    assert parse(n=10_000).choices == 10_000
    assert parse(max_tokens=(1 << 31) - 1).max_tokens == (1 << 31) - 1


def test_a_missing_model_is_refused() -> None:
    assert refusal(b'{"messages":[]}').param == "model"


def test_a_long_model_name_is_accepted_up_to_512_characters() -> None:
    assert parse(model="ö" * 512).model == "ö" * 512


def test_more_answers_than_the_bound_are_refused() -> None:
    body = json.dumps({"model": "a", "prompt": ["x"] * 101, "n": 100}).encode()

    assert refusal(body, COMPLETIONS).param == "prompt"


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_body_breaks_the_parser(body: bytes) -> None:
    with suppress(BadRequest):
        parse_json_request(COMPLETIONS, body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)
NAMES = st.sampled_from(
    ["model", "n", "stream", "prompt", "messages", "max_tokens", "priority", "stream_options", "x"],
)


@given(st.sampled_from([CHAT, COMPLETIONS, "/v1/responses"]), st.dictionaries(NAMES, JSON))
def test_no_json_breaks_the_parser_or_the_rewriting(path: str, fields: dict[str, Any]) -> None:
    try:
        parsed = parse_json_request(path, json.dumps(fields).encode())
    except BadRequest:
        return

    changed = json.loads(
        rewrite_body(parsed, model="other", priority=3, include_usage=True, return_token_ids=True)
    )

    options = (fields.get("stream_options") or {}) | {"include_usage": True}
    assert changed == fields | {
        "model": "other",
        "priority": 3,
        "stream_options": options,
        "return_token_ids": True,
    }


def test_without_changes_the_body_itself_is_returned() -> None:
    parsed = parse(stream=True, stream_options={"include_usage": True})

    assert rewrite_body(parsed) is parsed.body
    same = rewrite_body(parsed, model="base", drop_priority=True, include_usage=True)
    assert same is parsed.body


def test_other_values_keep_their_bytes() -> None:
    body = (
        b'{"model": "a", "temperature": 1.0e0, "seed": 12345678901234567890123, '
        rb'"messages": [ {"content": "\u00e9\/"} ] }'
    )

    changed = rewrite_body(parse_json_request(CHAT, body), model='b"\u00e9')

    assert (
        changed
        == (
            '{"model":"b\\"\u00e9","temperature":1.0e0,"seed":12345678901234567890123,'
            '"messages":[ {"content": "\\u00e9\\/"} ]}'
        ).encode()
    )


def test_the_priority_is_replaced_or_left_out() -> None:
    parsed = parse(priority=9)
    assert parsed.has_priority

    assert json.loads(rewrite_body(parsed, priority=-1)) == {"model": "base", "priority": -1}
    assert json.loads(rewrite_body(parsed, priority=2, drop_priority=True))["priority"] == 2
    assert json.loads(rewrite_body(parsed, drop_priority=True)) == {"model": "base"}


def test_a_priority_stays_where_nothing_is_said_of_it() -> None:
    assert json.loads(rewrite_body(parse(priority=9), model="x")) == {"model": "x", "priority": 9}


def test_a_priority_sent_twice_is_left_out_twice() -> None:
    parsed = parse_json_request(CHAT, b'{"priority":1,"model":"a","priority":2}')

    assert rewrite_body(parsed, drop_priority=True) == b'{"model":"a"}'


def test_asking_for_usage_keeps_the_other_stream_options() -> None:
    parsed = parse(stream=True, stream_options={"include_usage": False, "x": 1})

    assert json.loads(rewrite_body(parsed, include_usage=True))["stream_options"] == {
        "include_usage": True,
        "x": 1,
    }


def test_asking_for_usage_brings_it_in_no_other_chunk_than_the_last() -> None:
    parsed = parse(stream=True, stream_options={"continuous_usage_stats": True})

    rewritten = json.loads(rewrite_body(parsed, include_usage=True))
    assert rewritten["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("body", [
    b'{"model":"m","na\xcame":1}', b'{"model":"m","stream_options":{"\xca":1}}',
])  # fmt: skip
def test_a_name_that_is_no_text_is_the_clients_fault(body: bytes) -> None:
    parsed = parse_json_request("/v1/chat/completions", body)
    with pytest.raises(BadRequest, match="not valid JSON"):
        rewrite_body(parsed, model="other", include_usage=True)


def test_asking_for_usage_works_without_stream_options() -> None:
    for parsed in (parse(stream=True), parse(stream=True, stream_options=None)):
        changed = json.loads(rewrite_body(parsed, include_usage=True))

        assert changed["stream_options"] == {"include_usage": True}


def test_token_ids_are_asked_for() -> None:
    assert json.loads(rewrite_body(parse(), return_token_ids=True)) == {
        "model": "base",
        "return_token_ids": True,
    }


def test_the_members_of_a_body_are_its_bytes() -> None:
    request = parse_json_request("/v1/completions", b'{"model": "m", "prompt": "a", "x": [1, 2]}')
    assert {name: bytes(value) for name, value in members_of(request).items()} == {
        "model": b'"m"',
        "prompt": b'"a"',
        "x": b"[1, 2]",
    }
