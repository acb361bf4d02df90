"""Bodies that are odd or wrong."""

import pytest

from gateway.simulator.api_errors import ApiError
from gateway.simulator.api_requests import RequestReader, parse_json
from gateway.simulator.synthetic_language import SyntheticLanguage

READER = RequestReader(SyntheticLanguage(), "base", {"a": "path"}, 1000)
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("raw", [b"", b"[1]", b"{", b"\xff", b'"text"', b"{'a': 1}"])
def test_what_is_not_a_json_object_is_a_400(raw: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_json(raw)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": "hi"},
        {"messages": [{"content": "no role"}]},
        {"messages": MESSAGES, "n": 0},
        {"messages": MESSAGES, "n": "two"},
        {"messages": MESSAGES, "max_tokens": 0},
        {"messages": MESSAGES, "max_completion_tokens": 1001},
        {"messages": MESSAGES, "priority": 1.5},
        {"messages": MESSAGES, "stream": True, "stream_options": ["include_usage"]},
        {"messages": [{"role": "user", "content": "x " * 1000}]},
    ],
)
def test_a_wrong_chat_body_is_a_400(fields: dict[str, object]) -> None:
    with pytest.raises(ApiError) as caught:
        READER.chat(fields)
    assert caught.value.status == 400


@pytest.mark.parametrize("prompt", [None, [], [[]], [5, "x"], 7, [True]])
def test_a_wrong_prompt_is_a_400(prompt: object) -> None:
    with pytest.raises(ApiError) as caught:
        READER.completion({"prompt": prompt})
    assert caught.value.status == 400


def test_the_model_may_be_left_out_or_an_adapter_but_not_unknown() -> None:
    assert READER.adapter({}) is None
    assert READER.adapter({"model": "a"}) == "a"
    with pytest.raises(ApiError) as caught:
        READER.adapter({"model": ["a"]})
    assert caught.value.status == 404


def test_content_may_be_text_parts_or_null() -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    whole = READER.chat({"messages": [{"role": "user", "content": "hello"}]})
    assert READER.chat({"messages": [{"role": "user", "content": parts}]}).prompts == whole.prompts
    assert READER.chat({"messages": [{"role": "assistant", "content": None}]}).prompts[0]


def test_max_completion_tokens_goes_before_max_tokens() -> None:
    body = {"messages": MESSAGES, "max_tokens": 9, "max_completion_tokens": 4}
    assert READER.chat(body).max_tokens == (4,)


def test_usage_options_count_for_streams_only() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {"messages": MESSAGES, "stream_options": options}
    assert not READER.chat(body).include_usage
    streamed = READER.chat({**body, "stream": True})
    assert streamed.include_usage
    assert streamed.continuous_usage


def test_an_answer_may_end_by_itself_only_where_max_tokens_is_no_limit() -> None:
    prompt = [5] * 10

    def may_end(**fields: object) -> bool:
        return READER.completion({"prompt": prompt, **fields}).may_end[0]

    assert may_end(max_tokens=None)
    assert may_end(max_tokens=990)
    assert not may_end(max_tokens=989)
    assert not may_end(max_tokens=None, ignore_eos=True)
