"""The client's model name in answers, and streams without the usage chunk."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.model import TokenUsage
from gateway.wire.stream_rewrite import ModelNameRewriter, UsageChunkFilter
from tests.wire.recorded import STREAMS, answer_to, cut, events_of

CUTS = st.lists(st.integers(min_value=0), max_size=12)
TRICKY = 'ä"\\b'


def rename(
    *pieces: bytes,
    sent: str = "base",
    shown: str = "shown",
    streamed: bool = True,
    max_held_bytes: int = 1 << 20,
) -> bytes:
    rewriter = ModelNameRewriter(sent, shown, streamed=streamed, max_held_bytes=max_held_bytes)
    return b"".join(map(rewriter.feed, pieces)) + rewriter.flush()


def without_usage(*pieces: bytes, max_held_bytes: int = 1 << 20) -> bytes:
    usage_filter = UsageChunkFilter(max_held_bytes=max_held_bytes)
    return b"".join(map(usage_filter.feed, pieces)) + usage_filter.flush()


def event(fields: object) -> bytes:
    return b"data: %b\n\n" % json.dumps(fields, ensure_ascii=False).encode()


@given(st.sampled_from(STREAMS), CUTS)
def test_recorded_streams_name_the_clients_model_and_change_in_nothing_else(
    name: str, cuts: list[int]
) -> None:
    body = answer_to(name)

    renamed = rename(*cut(body, cuts), shown=TRICKY)

    assert renamed == body.replace(
        b'"model":"base"', b'"model":' + json.dumps(TRICKY, ensure_ascii=False).encode()
    )
    for before, after in zip(events_of(body), events_of(renamed), strict=True):
        assert after == before | ({"model": TRICKY} if "model" in before else {})


@given(CUTS)
def test_a_recorded_answer_in_one_piece_names_the_clients_model(cuts: list[int]) -> None:
    body = answer_to("chat_nonstream")

    renamed = rename(*cut(body, cuts), streamed=False)

    assert renamed == body.replace(b'"model":"base"', b'"model":"shown"')


def test_every_event_that_one_read_brought_passes_at_once() -> None:
    rewriter = ModelNameRewriter("base", "shown", streamed=True)
    body = answer_to("chat_stream_usage")

    for piece in body.split(b"\n\n")[:-1]:
        assert rewriter.feed(piece + b"\n\n").endswith(b"\n\n")

    assert rewriter.flush() == b""


def test_a_body_passes_on_as_soon_as_its_model_is_known() -> None:
    rewriter = ModelNameRewriter("base", "shown", streamed=False)

    assert rewriter.feed(b'{"model":"ba') == b""
    assert rewriter.feed(b'se","choices":[') == b'{"model":"shown","choices":['
    assert rewriter.feed(b'{"model":"base"}') == b'{"model":"base"}'


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        '{"model" : "base"}',
        '{"model":\t"base","x":1}',
        '{"x":[{"y":{}}],"z":"}","model":"base"}',
        '{"x":"\\\\","model":"base"}',
        '{"a\\"model":"base","model":"base"}',
    ],
)
def test_the_models_own_name_is_replaced_however_it_is_written(
    text: str, *, streamed: bool
) -> None:
    document = b"data: %b\n\n" % text.encode() if streamed else text.encode()

    renamed = rename(document, streamed=streamed).removeprefix(b"data: ")

    assert json.loads(renamed) == json.loads(text) | {"model": "shown"}


@pytest.mark.parametrize("sent", ["ä/b", 'a"b\\', "org/m.*", "日本"])
@pytest.mark.parametrize("as_ascii", [True, False])
def test_any_name_is_found_in_either_spelling(sent: str, *, as_ascii: bool) -> None:
    body = json.dumps({"model": sent}, ensure_ascii=as_ascii).encode()

    assert json.loads(rename(body, sent=sent, streamed=False)) == {"model": "shown"}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    "fields",
    [
        {"choices": [{"text": '"model":"base"'}]},
        {"choices": [{"text": '\\"model":"base" {[}'}]},
        {"choices": [{"model": "base"}]},
        {"x": {"y": {"model": "base"}}},
        {"x": {"model": "base"}},
        {"response": {}, "x": {"model": "base"}},
        {"response": {"x": {"model": "base"}}},
        {"x": {"response": {"model": "base"}}},
        {"response": [{"model": "base"}]},
        {'a"model': "base"},
        {'{"model': "base"},
        {"model": "base-2"},
        {"model": "xbase"},
        {"models": "base"},
        {"x": "model", "y": "base"},
        {"model": ["base"]},
        {"error": {"message": "no", "model": "base"}},
        [{"model": "base"}],
    ],
)
def test_nothing_but_the_models_own_name_is_replaced(fields: object, *, streamed: bool) -> None:
    document = event(fields)[0 if streamed else 6 :]

    assert rename(document, streamed=streamed) == document


@pytest.mark.parametrize("wrapper", ["response", "message"])
def test_the_model_in_an_events_envelope_is_replaced(wrapper: str) -> None:
    inner: dict[str, object] = {
        "id": "{",
        "metadata": {"model": "base"},
        "error": None,
        "model": "base",
        "z": [],
    }
    fields = {"type": "x", wrapper: inner}

    (renamed,) = events_of(rename(event(fields)))

    assert renamed == fields | {wrapper: inner | {"model": "shown"}}


def test_hostile_answers_take_linear_time() -> None:
    odd_keys = b'{"x":{' + b'"\\"model":"base",' * 20_000 + b'"y":1},"model":"base"}'
    nested = b'{"x":{' + b'"response":{"model":"base"},' * 20_000 + b'"y":1},"model":"base"}'

    for body in (odd_keys, nested, b"1" * 500_000 + odd_keys):
        assert rename(body, streamed=False).endswith(b'"y":1},"model":"shown"}')


def test_lines_that_are_no_data_stay() -> None:
    body = b': {"model":"base"}\nevent: {"model":"base"}\n\n'

    assert rename(body) == body


JSON = st.recursive(
    st.sampled_from(["base", '"model":"base"', "\\", None, 1, "{["]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "x", '"model', "usage", "choices"]), inner)
    ),
    max_leaves=12,
)


@given(
    fields=st.dictionaries(st.sampled_from(["model", "x", "choices"]), JSON),
    cuts=CUTS,
    streamed=st.booleans(),
)
def test_only_the_top_level_model_of_any_answer_is_replaced(
    fields: dict[str, Any], cuts: list[int], *, streamed: bool
) -> None:
    expected = fields | ({"model": "shown"} if fields.get("model") == "base" else {})
    document = event(fields)[0 if streamed else 6 :]

    renamed = rename(*cut(document, cuts), streamed=streamed)

    assert json.loads(renamed.removeprefix(b"data: ")) == expected


LINES = st.sampled_from(
    [
        event({"model": "base", "choices": []}),
        event({"choices": [], "usage": {"prompt_tokens": 1}}),
        event({"choices": [], "usage": {"prompt_tokens": 1}}).replace(b"\n", b"\r\n"),
        event({"choices": [1], "usage": {"prompt_tokens": 1}}),
        event({"choices": [], "usage": None}),
        b'data: {"usage" broken\n',
        b"data: " + b"x" * 120,
        b': {"usage":\n\n',
        b"\r\n",
        b"\n",
        b'"model":"base"',
    ],
)


@given(st.lists(LINES, max_size=12).map(b"".join), CUTS, st.sampled_from([20, 60, 1_000]))
def test_any_stream_changes_the_same_however_it_is_split(
    body: bytes, cuts: list[int], max_held_bytes: int
) -> None:
    bytewise = cut(body, list(range(len(body))))
    for change in (rename, without_usage):
        whole = change(body, max_held_bytes=max_held_bytes)

        assert change(*cut(body, cuts), max_held_bytes=max_held_bytes) == whole
        assert change(*bytewise, max_held_bytes=max_held_bytes) == whole


@given(st.binary(max_size=90), CUTS, st.sampled_from([b"", b'{"model":"base"}', b'{"model":']))
def test_any_body_changes_the_same_however_it_is_split(
    body: bytes, cuts: list[int], beginning: bytes
) -> None:
    body = beginning + body
    whole = rename(body, streamed=False, max_held_bytes=40)

    assert rename(*cut(body, cuts), streamed=False, max_held_bytes=40) == whole
    bytewise = cut(body, list(range(len(body))))
    assert rename(*bytewise, streamed=False, max_held_bytes=40) == whole


def test_too_long_a_line_passes_unchanged_and_the_next_is_changed() -> None:
    long = event({"x": "y" * 99, "model": "base"})
    short = event({"model": "base"})

    for pieces in ([long + short], cut(long + short, list(range(200)))):
        assert rename(*pieces, max_held_bytes=60) == long + event({"model": "shown"})


def test_a_body_without_its_model_in_time_passes_unchanged() -> None:
    body = b'{"x":"' + b"y" * 99 + b'","model":"base"}'
    rewriter = ModelNameRewriter("base", "shown", streamed=False, max_held_bytes=60)

    assert rewriter.feed(body[:50]) == b""
    assert rewriter.feed(body[50:70]) == body[:70]
    assert rewriter.feed(body[70:]) == body[70:]
    assert rewriter.flush() == b""


def test_a_body_in_many_small_pieces_names_the_clients_model() -> None:
    body = answer_to("chat_nonstream")

    renamed = rename(*cut(body, list(range(len(body)))), streamed=False)

    assert renamed == rename(body, streamed=False) != body


def test_an_unfinished_body_is_not_lost() -> None:
    assert rename(b'{"model":"ba', streamed=False) == b'{"model":"ba'
    assert rename(b'data: {"model":"base"}') == b'data: {"model":"base"}'


def test_the_rest_of_a_long_line_passes_as_it_comes() -> None:
    rewriter = ModelNameRewriter("base", "shown", streamed=True, max_held_bytes=10)

    assert rewriter.feed(b"data: " + b"x" * 10) == b"data: " + b"x" * 10
    assert rewriter.feed(b"yyy") == b"yyy"
    rest = event({"model": "base"})
    assert rewriter.feed(rest) == rest
    assert rewriter.feed(b"\n") == b"\n"


@pytest.mark.parametrize("excess", [0, 1])
def test_the_longest_line_is_still_changed(excess: int) -> None:
    line = event({"model": "base"})[:-1]
    limit = len(line) - 1 - excess
    expected = line if excess else event({"model": "shown"})[:-1]

    for pieces in ([line], [line[:-1], line[-1:]]):
        assert rename(*pieces, max_held_bytes=limit) == expected


def test_a_broken_usage_chunk_stays() -> None:
    for line in (b'data: {"usage":\n', b'data: {"choices":[],"usage":{"a":"\xff"}}\n'):
        assert without_usage(line) == line


@given(CUTS)
def test_the_usage_chunk_of_a_recorded_stream_is_taken_out(cuts: list[int]) -> None:
    body = answer_to("chat_stream_usage")
    events = events_of(body)

    passed = without_usage(*cut(body, cuts))

    assert events_of(passed) == [chunk for chunk in events if chunk["choices"]]
    assert passed.endswith(b"}\n\ndata: [DONE]\n\n")
    assert b"\n\n\n" not in passed


def test_a_usage_chunk_needs_no_space_and_must_be_data() -> None:
    assert without_usage(b'data:{"choices":[],"usage":{}}\r\n\r\n') == b""
    comment = b': dat{"choices":[],"usage":{}}\n'
    assert without_usage(comment) == comment


def test_the_usage_that_was_taken_out_is_kept() -> None:
    usage_filter = UsageChunkFilter()

    usage_filter.feed(answer_to("chat_stream_usage"))

    assert usage_filter.usage == TokenUsage(prompt_tokens=19, completion_tokens=12)


@pytest.mark.parametrize(
    "fields",
    [
        {"choices": [{"text": "q"}], "usage": {"prompt_tokens": 1}},
        {"choices": [], "usage": None},
        {"choices": [], "error": {"usage": {}}},
        {"usage": {"prompt_tokens": 1}},
        {"choices": [{"text": '"choices":[],"usage":{'}]},
        ["usage"],
    ],
)
def test_other_chunks_stay(fields: object) -> None:
    usage_filter = UsageChunkFilter()

    assert usage_filter.feed(event(fields)) == event(fields)
    assert usage_filter.usage is None
