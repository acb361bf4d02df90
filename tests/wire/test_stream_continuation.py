"""Streams that one server begins and another one ends, cut anywhere."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.wire.answer_so_far import AnswerSoFar
from gateway.wire.continuation_obstacles import continuation_obstacle
from gateway.wire.stream_continuation import ObservedStream, ResumedStream
from tests.wire.recorded import answer_to

CHAT = answer_to("chat_return_token_ids_stream")
COMPLETION = answer_to("comp_return_token_ids_stream")


def members(**fields: object) -> dict[str, Raw]:
    return msgspec.json.decode(json.dumps({"model": "m", **fields}), type=dict[str, Raw])


def events(stream: bytes) -> list[Any]:
    """The JSON of a stream's events; [DONE] as a string."""
    found = []
    for event in stream.split(b"\n\n"):
        if event.strip():
            data = event.strip().removeprefix(b"data: ")
            found.append("[DONE]" if data == b"[DONE]" else json.loads(data))
    return found


def text_of(stream: bytes, *, chat: bool) -> str:
    found = []
    for event in events(stream):
        for choice in event["choices"] if isinstance(event, dict) else ():
            found.append(choice["delta"].get("content") if chat else choice["text"])  # noqa: PERF401
    return "".join(found)


def ids_of(stream: bytes) -> list[int]:
    return [
        token
        for event in events(stream)
        if isinstance(event, dict)
        for choice in event["choices"]
        for token in choice.get("token_ids") or ()
    ]


def rest_of(stream: bytes, said: int, *, chat: bool) -> bytes:
    """What a completion of the prompt and the first `said` ids streams, as vLLM would."""
    parts: list[dict[str, Any]] = []
    skipped = 0
    for event in events(stream):
        if event == "[DONE]" or not event["choices"]:
            continue
        choice = event["choices"][0]
        ids = choice.get("token_ids") or []
        if skipped + len(ids) <= said and not choice["finish_reason"]:
            skipped += len(ids)
            continue
        text = choice["delta"].get("content") if chat else choice["text"]
        parts.append(
            {
                "id": "cmpl-2",
                "object": "text_completion",
                "created": 2,
                "model": "m",
                "choices": [
                    {
                        "index": 0,
                        "text": text,
                        "logprobs": None,
                        "finish_reason": choice["finish_reason"],
                        "stop_reason": None,
                        "prompt_token_ids": [9] if not parts else None,
                        "token_ids": ids,
                    }
                ],
            }
        )
    usage = {"prompt_tokens": 99, "completion_tokens": len(ids_of(stream)) - said}
    parts.append({"id": "cmpl-2", "choices": [], "usage": usage, "system_fingerprint": "f"})
    return b"".join(b"data: %b\n\n" % json.dumps(p).encode() for p in parts) + b"data: [DONE]\n\n"


def hidden(stream: bytes) -> bytes:
    """The stream as a server sends it that was not asked for ids."""
    answer = AnswerSoFar(chat=True, body=members())
    observed = ObservedStream(answer)
    return observed.feed(stream) + observed.flush()


def continued(stream: bytes, cut: int, *, chat: bool, body: dict[str, Raw]) -> bytes:
    """What the client gets when the stream breaks after `cut` bytes."""
    answer = AnswerSoFar(chat=chat, body=body)
    got = ObservedStream(answer).feed(stream[:cut])
    answer.broke()
    request = answer.resumed_request(2048)
    if request is None:
        return got + (answer.ending(2048) or b"")
    ids = ids_of(stream)
    prompt = json.loads(request)["prompt"]
    assert prompt[-answer.said :] == ids[: answer.said] or not answer.said
    resumed = ResumedStream(answer)
    return got + resumed.feed(rest_of(stream, answer.said, chat=chat)) + resumed.flush()


def test_a_stream_that_does_not_break_is_what_it_is_without_ids() -> None:
    for event in events(hidden(CHAT)):
        if isinstance(event, dict):
            assert event.get("prompt_token_ids") is None
            assert all(choice.get("token_ids") is None for choice in event["choices"])
    assert text_of(hidden(CHAT), chat=True) == text_of(CHAT, chat=True)
    assert len(hidden(CHAT).split(b"\n\n")) == len(CHAT.split(b"\n\n"))


def first_event_ends(stream: bytes) -> int:
    return stream.index(b"\n\n") + 2


@given(st.data())
@pytest.mark.parametrize("wants_ids", [True, False])
@pytest.mark.parametrize(("stream", "chat"), [(CHAT, True), (COMPLETION, False)])
def test_a_broken_stream_goes_on_without_loss_or_repetition(
    stream: bytes,
    chat: bool,  # noqa: FBT001
    wants_ids: bool,  # noqa: FBT001
    data: st.DataObject,
) -> None:
    cut = data.draw(st.integers(first_event_ends(stream), len(stream)))
    options = {"stream_options": {"include_usage": True}} if chat else {}
    body = members(max_tokens=12, return_token_ids=wants_ids, **options)
    got = continued(stream, cut, chat=chat, body=body)

    assert ids_of(got) == (ids_of(stream) if wants_ids else [])
    assert (b'token_ids":[' in got) is wants_ids
    assert text_of(got, chat=chat) == text_of(stream, chat=chat)
    assert got.endswith(b"data: [DONE]\n\n")
    assert got.count(b"[DONE]") == 1
    whole = [event for event in events(got) if event != "[DONE]"]
    assert {event["id"] for event in whole} == {events(stream)[0]["id"]}
    assert {event["object"] for event in whole} == {events(stream)[0]["object"]}
    finishes = [c["finish_reason"] for e in whole for c in e["choices"] if c["finish_reason"]]
    assert finishes == ["length"]
    usages = [event["usage"] for event in whole if not event["choices"]]
    if chat:
        assert [(u["prompt_tokens"], u["completion_tokens"]) for u in usages] == [(19, 12)]
        assert usages[0]["total_tokens"] == 31
    else:
        assert usages == []


@given(st.data())
@pytest.mark.parametrize("stream", [CHAT, COMPLETION])
def test_who_wants_ids_gets_the_bytes_of_the_server(stream: bytes, data: st.DataObject) -> None:
    observed = ObservedStream(AnswerSoFar(chat=True, body=members(return_token_ids=True)))
    got, rest = b"", stream
    while rest:
        size = data.draw(st.integers(1, 400))
        got += observed.feed(rest[:size])
        rest = rest[size:]
    assert got == stream


def pieces(*texts_and_ids: tuple[str, list[int]]) -> Iterator[bytes]:
    yield (
        b'data: {"id":"c","created":1,"model":"m","choices":[{"index":0,"delta":{"role":'
        b'"assistant","content":""},"finish_reason":null}],"prompt_token_ids":[7,8]}\n\n'
    )
    for text, ids in texts_and_ids:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, "token_ids": ids}
        yield b"data: %b\n\n" % json.dumps({"id": "c", "choices": [choice]}).encode()


def broken_after(*texts_and_ids: tuple[str, list[int]], **fields: object) -> AnswerSoFar:
    answer = AnswerSoFar(chat=True, body=members(**fields))
    ObservedStream(answer).feed(b"".join(pieces(*texts_and_ids)))
    answer.broke()
    return answer


def request_of(answer: AnswerSoFar) -> dict[str, Any]:
    request = answer.resumed_request(100)
    assert request is not None
    decoded: dict[str, Any] = json.loads(request)
    return decoded


def test_ids_whose_text_has_not_come_are_asked_for_again() -> None:
    answer = broken_after(("a", [1]), ("", [2]), ("b", [3]), ("", [4]))
    assert request_of(answer)["prompt"] == [7, 8, 1, 2, 3]
    assert answer.usage.completion_tokens == 3


def test_what_the_answer_is_sampled_with_is_asked_for_again_and_nothing_else() -> None:
    request = request_of(
        broken_after(("a", [1]), temperature=0.5, seed=3, min_tokens=5, messages=[], max_tokens=9)
    )
    assert request == {
        "model": "m",
        "temperature": 0.5,
        "seed": 3,
        "min_tokens": 4,
        "prompt": [7, 8, 1],
        "max_tokens": 8,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }


def test_ids_wait_for_their_text_because_the_next_server_may_say_others() -> None:
    answer = AnswerSoFar(chat=True, body=members(return_token_ids=True, max_tokens=9))
    got = ObservedStream(answer).feed(b"".join(pieces(("a", [1]), ("", [2]), ("", [3]))))
    answer.broke()
    assert request_of(answer)["prompt"] == [7, 8, 1]
    got += ResumedStream(answer).feed(
        b'data: {"choices":[{"text":"","token_ids":[4]}]}\n\n'
        b'data: {"choices":[{"text":"b","token_ids":[5]}]}\n\n'
    )
    assert ids_of(got) == [1, 4, 5]
    assert events(got)[-1]["choices"][0]["token_ids"] == [4, 5]


def test_many_ids_without_text_reach_a_client_that_wants_them() -> None:
    answer = AnswerSoFar(chat=True, body=members(return_token_ids=True, max_tokens=9))
    observed = ObservedStream(answer)
    stream = b"".join(pieces(("a", [1]), *[("", [2] * 100_000)] * 4, ("", [3]), ("b", [4])))
    lines = stream.splitlines(keepends=True)
    got = [observed.feed(line) for line in lines]
    assert b"".join(got) == stream
    assert answer.obstacle == "many tokens without text"
    assert b"".join(got[:-4]) == b"".join(lines[:-4])
    assert b"".join(got[:8]) == b"".join(lines[:4])


def told_ahead_of_its_text(next_event: bytes) -> tuple[AnswerSoFar, bytes]:
    """A client has the ids 1 to 3, but only the text of 1; the next server says `next_event`."""
    answer = AnswerSoFar(chat=True, body=members(return_token_ids=True, max_tokens=9))
    ObservedStream(answer).feed(b"".join(pieces(("a", [1, 2, 3]))))
    answer.broke()
    answer.judge_tail("a\ufffd")
    answer.judge_tail("a\ufffd")
    assert request_of(answer)["prompt"] == [7, 8, 1]
    return answer, ResumedStream(answer).feed(next_event + b"data: [DONE]\n\n")


def test_ids_that_the_client_has_are_not_told_again_with_their_text() -> None:
    _, got = told_ahead_of_its_text(
        b'data: {"choices":[{"text":"b","token_ids":[2]}]}\n\n'
        b'data: {"choices":[{"text":"","token_ids":[3]}]}\n\n'
        b'data: {"choices":[{"text":"c","token_ids":[4],"finish_reason":"stop"}]}\n\n'
    )
    assert [each["choices"][0]["token_ids"] for each in events(got)[:-1]] == [[], [4]]
    assert text_of(got[: got.index(b"data: [DONE]")], chat=True) == "bc"


def test_ids_that_are_told_ahead_of_their_text_survive_a_second_break() -> None:
    answer, got = told_ahead_of_its_text(b'data: {"choices":[{"text":"b","token_ids":[2]}]}\n\n')
    answer.broke()
    assert request_of(answer)["prompt"] == [7, 8, 1, 2]
    got += ResumedStream(answer).feed(
        b'data: {"choices":[{"text":"c","token_ids":[3,4],"finish_reason":"stop"}]}\n\n'
    )
    assert ids_of(got) == [4]


@pytest.mark.parametrize(
    ("choice", "obstacle"),
    [
        (b'{"text":"b","token_ids":[5]}', "other token ids than the client has"),
        (b'{"text":"b"}', "no token ids from the server"),
    ],
)
def test_a_server_that_says_other_ids_than_the_client_has_is_not_listened_to(
    choice: bytes, obstacle: str
) -> None:
    answer, got = told_ahead_of_its_text(b'data: {"choices":[%b]}\n\n' % choice)
    assert got == b""
    assert answer.obstacle == obstacle


def test_numbers_are_read_as_vllm_reads_them() -> None:
    answer = broken_after(("a", [1]), min_tokens="5", max_tokens=9.0, messages=[])

    request = request_of(answer)
    assert (request["min_tokens"], request["max_tokens"]) == (4, 8)


def test_a_least_number_that_is_none_is_left_to_the_server() -> None:
    answer = broken_after(("a", [1]), min_tokens={}, max_tokens=9, messages=[])

    assert request_of(answer)["min_tokens"] == 0


@pytest.mark.parametrize(
    ("fields", "chat", "expected"),
    [
        ({"max_tokens": 9}, True, 8),
        ({"max_completion_tokens": 5}, True, 4),
        ({}, True, 97),
        ({"max_tokens": None}, False, 97),
        ({}, False, 15),
    ],
)
def test_the_rest_has_as_many_tokens_as_the_whole_would_have_had(
    fields: dict[str, object],
    chat: bool,  # noqa: FBT001
    expected: int,
) -> None:
    answer = AnswerSoFar(chat=chat, body=members(**fields))
    if chat:
        ObservedStream(answer).feed(b"".join(pieces(("a", [1]))))
    else:
        ObservedStream(answer).feed(
            b'data: {"choices":[{"text":"a","prompt_token_ids":[7,8],"token_ids":[1]}]}\n\n'
        )
    answer.broke()
    assert request_of(answer)["max_tokens"] == expected


def test_without_a_limit_that_is_known_there_is_no_request() -> None:
    answer = broken_after(("a", [1]))
    assert answer.resumed_request(None) is None
    assert answer.obstacle == "no limit of tokens known"
    assert answer.ending(None) is None


def test_an_error_event_is_a_break_that_the_client_does_not_see() -> None:
    answer = AnswerSoFar(chat=True, body=members())
    stream = b"".join(pieces(("a", [1])))
    got = ObservedStream(answer).feed(
        stream + b'data: {"error":{"message":"died","code":500}}\n\ndata: [DONE]\n\n'
    )
    assert got == stream.replace(b'"prompt_token_ids":[7,8]', b'"prompt_token_ids":null').replace(
        b'"token_ids": [1]', b'"token_ids": null'
    )
    answer.broke()
    assert request_of(answer)["prompt"] == [7, 8, 1]


def test_an_error_of_the_clients_own_making_is_passed_on() -> None:
    stream = b'data: {"error":{"message":"too long","code":400}}\n\ndata: [DONE]\n\n'
    assert ObservedStream(AnswerSoFar(chat=True, body=members())).feed(stream) == stream


def test_several_breaks_are_survived() -> None:
    answer = broken_after(("a", [1]), max_tokens=5)
    second = ResumedStream(answer)
    got = second.feed(b'data: {"choices":[{"text":"b","token_ids":[2]}]}\n\ndata: {"error":{}}\n\n')
    answer.broke()
    assert request_of(answer)["prompt"] == [7, 8, 1, 2]
    assert request_of(answer)["max_tokens"] == 3
    third = ResumedStream(answer)
    got += third.feed(
        b'data: {"choices":[{"text":"c","token_ids":[3],"finish_reason":"stop"}]}\n\n'
        b"data: [DONE]\n\n"
    )
    assert text_of(got, chat=True) == "bc"
    assert answer.breaks == 2
    assert answer.finished


def test_an_answer_that_lacks_only_its_end_is_ended_here() -> None:
    answer = broken_after(("a", [1]), max_tokens=1, stream_options={"include_usage": True})
    assert answer.resumed_request(100) is None
    ended = events(answer.ending(100) or b"")
    assert ended[0]["choices"][0]["finish_reason"] == "length"
    assert ended[1]["usage"]["total_tokens"] == 3
    assert ended[2] == "[DONE]"


@pytest.mark.parametrize("wants_usage", [True, False])
def test_an_answer_that_broke_between_its_last_text_and_its_end_is_ended_here(
    wants_usage: bool,  # noqa: FBT001
) -> None:
    options = {"include_usage": wants_usage}
    answer = AnswerSoFar(chat=True, body=members(stream_options=options, max_tokens=9))
    last = b'{"choices":[{"delta":{"content":"b"},"finish_reason":"stop","token_ids":[2]}]}'
    ObservedStream(answer).feed(b"".join(pieces(("a", [1]))) + b"data: %b\n" % last)
    answer.broke()
    assert answer.resumed_request(100) is None
    ending = answer.ending(100) or b""
    assert ending.startswith(b"\ndata: ")
    assert [e["usage"]["total_tokens"] for e in events(ending)[:-1]] == [4] * wants_usage
    assert events(ending)[-1] == "[DONE]"


def test_nothing_is_missing_when_only_the_connection_broke() -> None:
    answer = AnswerSoFar(chat=True, body=members(max_tokens=12))
    ObservedStream(answer).feed(CHAT)
    answer.broke()
    assert answer.ending(100) == b""


def test_an_end_without_a_reason_is_a_break() -> None:
    answer = AnswerSoFar(chat=True, body=members(max_tokens=9))
    assert b"DONE" not in ObservedStream(answer).feed(
        b"".join(pieces(("a", [1]))) + b"data: [DONE]\n\n"
    )
    answer.broke()
    assert ResumedStream(answer).feed(b"data: [DONE]\n\n") == b""


def test_an_answer_that_is_not_complete_has_no_end() -> None:
    assert broken_after(("a", [1]), max_tokens=5).ending(100) is None


def test_a_cut_right_after_an_event_is_mended_with_an_empty_line() -> None:
    answer = AnswerSoFar(chat=True, body=members())
    ObservedStream(answer).feed(b"".join(pieces(("a", [1])))[:-1])
    answer.broke()
    got = ResumedStream(answer).feed(b'data: {"choices":[{"text":"b","token_ids":[2]}]}\n')
    assert got.startswith(b"\ndata: {")


@pytest.mark.parametrize(
    ("event", "obstacle"),
    [
        (b'{"choices":[{"delta":{"reasoning":"hm"},"token_ids":[1]}]}', "reasoning"),
        (b'{"choices":[{"delta":{"tool_calls":[{}]},"token_ids":[1]}]}', "tool_calls"),
        (b'{"choices":[{"delta":{"content":"a"}}]}', "no token ids from the server"),
        (b'{"choices":[{"delta":7}]}', "no token ids from the server"),
        (b"{broken", "an event of an unknown form"),
    ],
)
def test_answers_that_cannot_be_carried_over_say_why(event: bytes, obstacle: str) -> None:
    answer = AnswerSoFar(chat=True, body=members(max_tokens=5))
    line = b"data: %b\n" % event
    assert ObservedStream(answer).feed(line).startswith(b"data:")
    answer.broke()
    assert answer.obstacle == obstacle
    assert answer.resumed_request(100) is None


def test_what_a_later_server_says_in_an_unknown_form_is_not_passed_on() -> None:
    answer = broken_after(("a", [1]), max_tokens=5)
    assert ResumedStream(answer).feed(b"data: {broken\n\ndata: [DONE]\n\n: comment\n") == b""
    assert answer.obstacle == "an event of an unknown form"


def test_an_event_that_cannot_be_passed_on_does_not_end_the_answer() -> None:
    answer = broken_after(("a", [1]), max_tokens=5, return_token_ids=True)
    rest = ResumedStream(answer)
    assert rest.feed(b'data: {"choices":[{"text":"b","finish_reason":"stop"}]}\n\n') == b""
    assert (rest.gave_up, rest.told) == (True, False)
    answer.broke()
    assert answer.ending(100) is None


def test_a_stream_has_told_something_as_soon_as_a_line_has_passed() -> None:
    rest = ResumedStream(broken_after(("a", [1]), max_tokens=5))
    assert rest.feed(b'data: {"choices":[{"text":"b","token_ids":[2]}]}') == b""
    assert not rest.told
    assert text_of(rest.feed(b"\n"), chat=True) == "b"
    assert (rest.gave_up, rest.told) == (False, True)


@pytest.mark.parametrize("chat", [True, False])
def test_prompt_ids_that_the_client_has_not_come_with_the_rest(
    chat: bool,  # noqa: FBT001
) -> None:
    answer = AnswerSoFar(chat=chat, body=members(max_tokens=5, return_token_ids=True))
    first = b'{"choices":[{"text":"","token_ids":[1],"prompt_token_ids":[7,8]}]}'
    assert ObservedStream(answer).feed(b"data: %b\n\n" % first) == b""
    answer.broke()
    rest = b'data: {"choices":[{"text":"a","token_ids":[1]}]}\n\n'
    got = events(ResumedStream(answer).feed(rest * 2))
    prompts = [
        e.get("prompt_token_ids") if chat else e["choices"][0]["prompt_token_ids"] for e in got
    ]
    assert prompts == [[7, 8], None]


def test_events_made_here_name_the_model_that_the_client_asked_for() -> None:
    answer = AnswerSoFar(chat=True, body=members(model="kept \u00e9", max_tokens=1))
    choice = b'{"delta":{"content":"a"},"token_ids":[1]}'
    said = b'{"model":"base","prompt_token_ids":[7],"choices":[%b]}' % choice
    ObservedStream(answer).feed(b"data: %b\n\n" % said)
    answer.broke()
    (ended, _) = events(answer.ending(100) or b"")
    assert ended["model"] == "kept \u00e9"


def test_ids_without_text_of_a_rest_that_is_asked_for_again_come_once() -> None:
    answer = broken_after(("a", [1]), max_tokens=5)
    without_text = b'data: {"choices":[{"text":"","token_ids":[2]}]}\n'
    assert ResumedStream(answer).feed(without_text) == b""
    ResumedStream(answer).feed(without_text + b'data: {"choices":[{"text":"b","token_ids":[3]}]}\n')
    answer.broke()
    assert request_of(answer)["prompt"] == [7, 8, 1, 2, 3]


def test_the_stop_token_is_part_of_the_rest_where_it_is_of_the_whole() -> None:
    answer = broken_after(("a", [1]), include_stop_str_in_output=True, stop_token_ids=[5])
    request = request_of(answer)
    assert (request["include_stop_str_in_output"], request["stop_token_ids"]) == (True, [5])


def test_nothing_is_known_of_a_stream_that_broke_before_its_first_event() -> None:
    answer = AnswerSoFar(chat=True, body=members())
    assert answer.usage.prompt_tokens is None
    answer.broke()
    assert answer.resumed_request(100) is None


def test_empty_events_of_a_later_server_are_left_out() -> None:
    answer = broken_after(("a", [1]), max_tokens=5)
    stream = ResumedStream(answer)
    assert stream.feed(b'data: {"choices":[{"text":"","token_ids":[]}]}\n\n') == b""
    assert stream.feed(b'data: {"choices":[],"usage":{"completion_tokens":1}}\n\n') == b""
    assert stream.feed(b'data: {"choices":[],"usage":null}\n\n') == b""


def test_a_usage_without_counts_is_counted_from_the_ids() -> None:
    answer = broken_after(("a", [1]), stream_options={"include_usage": True}, max_tokens=5)
    got = ResumedStream(answer).feed(
        b'data: {"choices":[{"text":"b","token_ids":[2],"finish_reason":"stop"}]}\n\n'
        b'data: {"choices":[],"usage":{}}\n\n'
        b'data: {"choices":[],"usage":{}}\n\n'
    )
    assert [e["usage"]["completion_tokens"] for e in events(got) if not e["choices"]] == [2]


@pytest.mark.parametrize(
    ("fields", "obstacle"),
    [
        ({}, None),
        ({"tools": [], "stop": None, "logprobs": False, "n": 1, "echo": False}, None),
        ({"response_format": {"type": "text"}, "stream_options": {"include_usage": True}}, None),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}, None),
        ({"messages": [{"role": "user", "content": "a"}, 7]}, None),
        ({"prompt": "a"}, None),
        ({"prompt": [1, 2]}, None),
        ({"prompt": ["a"]}, None),
        ({"return_token_ids": True}, None),
        ({"return_token_ids": False}, None),
        ({"return_token_ids": "yes"}, "return_token_ids"),
        ({"prompt": ["a", "b"]}, "several prompts"),
        ({"tools": [{}]}, "tools"),
        ({"stop": ["x"]}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"n": 2}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"vllm_xargs": {"a": 1}}, "vllm_xargs"),
        ({"logits_processors": ["x"]}, "logits_processors"),
        ({"vllm_xargs": None, "logits_processors": []}, None),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"stream_options": {"continuous_usage_stats": True}}, "continuous_usage_stats"),
        (
            {"messages": [{"content": [{"type": "image_url"}]}]},
            "multimodal content",
        ),
        ({"messages": [{"content": [7]}]}, "multimodal content"),
    ],
)
def test_what_cannot_be_continued_is_told_from_the_request(
    fields: dict[str, object], obstacle: str | None
) -> None:
    assert continuation_obstacle(members(**fields)) == obstacle


def bundled(answer: AnswerSoFar, text: str | None, *ids: int, finish: str | None = None) -> None:
    choice = {"text": text, "token_ids": ids, "finish_reason": finish, "prompt_token_ids": [9]}
    ObservedStream(answer).feed(b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode())


def prompt_of(answer: AnswerSoFar) -> list[int]:
    body = answer.resumed_request(None)
    assert body is not None
    prompt: list[int] = json.loads(body)["prompt"]
    return prompt


def test_the_text_of_one_id_is_beyond_doubt() -> None:
    answer = AnswerSoFar(chat=False, body=members(max_tokens=50))
    bundled(answer, "a", 1, 2)
    bundled(answer, None, 3, 4)
    assert answer.doubtful_tail() == [1, 2]
    bundled(answer, "b", 5)
    assert answer.doubtful_tail() is None


def test_of_several_ids_all_but_the_first_are_in_doubt() -> None:
    answer = AnswerSoFar(chat=False, body=members(max_tokens=50))
    bundled(answer, "a", *range(20))
    bundled(answer, "b", 20, 21, 22)
    answer.broke()
    assert answer.doubtful_tail() == list(range(13, 23))
    answer.judge_tail("some\ufffd")
    assert answer.doubtful_tail() == list(range(13, 22))
    answer.judge_tail("some\ufffd")
    assert answer.doubtful_tail() is None
    assert prompt_of(answer) == [9, *range(21)]


def test_ids_that_end_a_character_are_kept() -> None:
    answer = AnswerSoFar(chat=False, body=members(max_tokens=50))
    bundled(answer, "ab", 1, 2)
    answer.judge_tail("ab")
    assert answer.doubtful_tail() is None
    assert prompt_of(answer) == [9, 1, 2]


def test_an_answer_whose_last_text_nobody_tells_cannot_be_continued() -> None:
    answer = AnswerSoFar(chat=False, body=members(max_tokens=50))
    bundled(answer, "ab", 1, 2)
    answer.judge_tail(None)
    assert answer.doubtful_tail() is None
    assert answer.resumed_request(None) is None


def test_nothing_of_a_finished_answer_is_in_doubt() -> None:
    answer = AnswerSoFar(chat=False, body=members(max_tokens=50))
    bundled(answer, "ab", 1, 2, finish="stop")
    assert answer.doubtful_tail() is None
