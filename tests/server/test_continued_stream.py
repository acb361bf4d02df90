"""What servers are asked for the rest of a broken stream, and what becomes of it."""

import gzip
import json
from typing import Any

import pytest

from gateway.scheduling.events import BackendLeft
from gateway.scheduling.model import (
    BackendId,
    LLMService,
    ServedModel,
    ServiceName,
    TargetModel,
)
from gateway.scheduling.policy import QueuePolicy
from gateway.server.options import PoolOptions
from gateway.telemetry.request_record import Outcome
from tests.server.gateway_rig import CHAT, Rig, chat, gateway, make_policy
from tests.server.raw_server import Peer, RawServer

SERVICE = LLMService(
    name=ServiceName("kept"), model="kept", priority=0, targets=(TargetModel("base", 1.0),)
)
OPTIONS = PoolOptions(continue_streams=frozenset({SERVICE.name}))
MODELS = (ServedModel("base", max_model_len=100),)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(text: str, token: int, **fields: object) -> bytes:
    event: dict[str, Any] = {"id": "one", "created": 1, "model": "base"}
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, "token_ids": [token]}
    event["choices"] = [choice]
    return framed(event | fields)


def completion(text: str, *tokens: int, finish: str | None = None, end: bytes = b"\n\n") -> bytes:
    """An event with these token ids; a server without ids tells none."""
    choice = {"index": 0, "text": text, "finish_reason": finish, "token_ids": tokens or None}
    return framed({"id": "two", "model": "base", "choices": [choice]}, end=end)


def framed(event: object, *, end: bytes = b"\n\n") -> bytes:
    data = b"data: %b" % (event if isinstance(event, bytes) else json.dumps(event).encode()) + end
    return b"%x\r\n%b\r\n" % (len(data), data)


END = framed(b"[DONE]") + b"0\r\n\r\n"


class Script:
    """The answers of all servers together, in the order in which they are asked."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def __call__(self, peer: Peer) -> None:
        request = await peer.request()
        assert request.header("content-encoding") is None
        self.asked.append((request.line, json.loads(request.body)))
        await peer.send(self.answers.pop(0))


BEGINNING = HEAD + chunk("a", 1, prompt_token_ids=[7, 8]) + chunk("b", 2)
REST = HEAD + completion("c", 3) + completion("d", 4, finish="stop") + END


async def stream(rig: Rig, *headers: str, body: bytes | None = None) -> bytes:
    async with rig.client() as client:
        client.post(CHAT, body or chat(model="kept", stream=True), *headers)
        return (await client.response()).body


def text_of(body: bytes) -> str:
    events = [json.loads(e[6:]) for e in body.split(b"\n\n") if e.startswith(b"data: {")]
    return "".join(c["delta"]["content"] for e in events for c in e.get("choices", ()))


def rig_of(*answers: bytes, servers: int = 2, **settings: object) -> tuple[Script, Any]:
    script = Script(*answers)
    values: dict[str, object] = {"policy": make_policy(SERVICE), "pool_options": OPTIONS}
    return script, gateway(*(RawServer(script) for _ in range(servers)), **values | settings)


async def test_the_next_server_is_asked_for_the_rest_of_the_tokens() -> None:
    script, running = rig_of(BEGINNING, REST)
    async with running as rig:
        rig.join(MODELS)
        body = await stream(rig)
        assert rig.in_flight == 0
    assert text_of(body) == "abcd"
    assert body.endswith(b"data: [DONE]\n\n")
    assert b'"kept"' in body
    assert b'"base"' not in body
    (_, first), (line, second) = script.asked
    assert first["return_token_ids"] is True
    assert line == "POST /v1/completions HTTP/1.1"
    assert (second["prompt"], second["max_tokens"]) == ([7, 8, 1, 2], 96)
    assert second["model"] == "base"
    (record,) = rig.records.all
    assert (record.outcome, record.continuations) == (Outcome.OK, 1)
    assert (record.prompt_tokens, record.completion_tokens) == (2, 4)


async def test_a_client_that_asks_for_token_ids_gets_those_of_all_servers() -> None:
    script, running = rig_of(BEGINNING, REST)
    async with running as rig:
        rig.join(MODELS)
        body = await stream(rig, body=chat(model="kept", stream=True, return_token_ids=True))
    assert text_of(body) == "abcd"
    assert b'"prompt_token_ids": [7, 8]' in body
    events = [json.loads(each[6:]) for each in body.split(b"\n\n") if each.startswith(b"data: {")]
    assert [event["choices"][0]["token_ids"] for event in events] == [[1], [2], [3], [4]]
    assert len(script.asked) == 2


def bundle(text: str, *tokens: int) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "token_ids": tokens}
    return framed({"choices": [choice]})


def page(**members: object) -> bytes:
    body = json.dumps(members).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def test_ids_of_an_event_that_do_not_end_a_character_are_asked_for_again() -> None:
    script, running = rig_of(
        BEGINNING + bundle("c", 3, 4, 5), page(prompt="abc\ufffd"), page(prompt="abc"), REST
    )
    async with running as rig:
        rig.join(MODELS)
        body = await stream(rig)
    assert text_of(body) == "abccd"
    _, (line, asked), (_, again), (_, rest) = script.asked
    assert line == "POST /detokenize HTTP/1.1"
    assert asked == {"model": "base", "tokens": [1, 2, 3, 4, 5]}
    assert again["tokens"] == [1, 2, 3, 4]
    assert (rest["prompt"], rest["max_tokens"]) == ([7, 8, 1, 2, 3, 4], 94)


@pytest.mark.parametrize(
    "useless", [page(text="abc"), page().replace(b"200 OK", b"404 Not Found"), b""]
)
async def test_without_the_text_of_doubtful_ids_an_answer_is_not_continued(useless: bytes) -> None:
    script, running = rig_of(BEGINNING + bundle("c", 3, 4), *[useless] * 3)
    async with running as rig:
        rig.join(MODELS)
        body = await stream(rig)
    assert text_of(body) == "abc"
    assert b'"error":' in body
    assert not any("/v1/completions" in line for line, _ in script.asked)


async def test_the_rest_is_not_asked_of_the_server_where_the_answer_broke_off() -> None:
    asked: list[int] = []

    def server(number: int) -> RawServer:
        async def script(peer: Peer) -> None:
            request = await peer.request()
            asked.append(number)
            await peer.send(BEGINNING if CHAT in request.line else REST)

        return RawServer(script)

    policy = make_policy(SERVICE)
    async with gateway(server(0), server(1), policy=policy, pool_options=OPTIONS) as rig:
        rig.join(MODELS)
        for _ in range(8):
            assert text_of(await stream(rig)) == "abcd"
    assert all(first != second for first, second in zip(asked[::2], asked[1::2], strict=True))


async def test_the_only_server_is_asked_for_the_rest_itself() -> None:
    script, running = rig_of(BEGINNING, REST, servers=1)
    async with running as rig:
        rig.join(MODELS)
        assert text_of(await stream(rig)) == "abcd"
    assert len(script.asked) == 2


async def test_a_compressed_request_is_continued_in_plain_text() -> None:
    script, running = rig_of(BEGINNING, REST)
    async with running as rig:
        rig.join(MODELS)
        packed = gzip.compress(chat(model="kept", stream=True))
        headers = ("Content-Type: application/json", "Content-Encoding: gzip")
        assert text_of(await stream(rig, *headers, body=packed)) == "abcd"
    assert len(script.asked) == 2


@pytest.mark.parametrize(
    "refusal",
    [
        b"HTTP/1.1 500 Broken\r\ncontent-length: 3\r\n\r\nbad",
        b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        HEAD + framed(b'{"error":{"message":"no","code":400}}') + END,
    ],
)
async def test_a_server_that_refuses_the_rest_is_followed_by_another(refusal: bytes) -> None:
    script, running = rig_of(BEGINNING, refusal, REST, servers=3)
    async with running as rig:
        rig.join(MODELS)
        body = await stream(rig)
    assert text_of(body) == "abcd"
    assert b"bad" not in body
    assert b"{}" not in body
    assert b"error" not in body
    assert len(script.asked) == 3


async def test_a_client_is_told_when_no_server_goes_on() -> None:
    broken = b"HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n"
    _, running = rig_of(BEGINNING, broken, broken, broken)
    async with running as rig:
        rig.join(MODELS)
        body = await stream(rig)
        assert rig.in_flight == 0
    assert text_of(body) == "ab"
    assert b'"error"' in body
    assert body.endswith(b"data: [DONE]\n\n")
    (record,) = rig.records.all
    assert record.outcome is Outcome.STREAM_ERROR


async def test_an_error_that_all_servers_begin_with_reaches_the_client_whole() -> None:
    busy = b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy"
    _, running = rig_of(*[busy] * 9)
    async with running as rig, rig.client() as client:
        client.post(CHAT, chat(model="kept", stream=True))
        answer = await client.response()
        assert rig.in_flight == 0
    assert (answer.status, answer.body) == (503, b"busy")


async def test_an_error_event_that_all_streams_begin_with_reaches_the_client() -> None:
    event = b'{"error":{"message":"out of memory","code":500}}'
    _, running = rig_of(*[HEAD + framed(event) + END] * 9)
    async with running as rig:
        body = await stream(rig)
        assert rig.in_flight == 0
    assert body == b"data: %b\n\ndata: [DONE]\n\n" % event


async def test_an_error_page_too_large_to_be_held_back_reaches_the_client_whole() -> None:
    page = b"x" * 300_000
    head = b"HTTP/1.1 500 Broken\r\ncontent-length: %d\r\n\r\n" % len(page)
    _, running = rig_of(*[head + page] * 9)
    async with running as rig:
        assert await stream(rig) == page
        assert rig.in_flight == 0


async def test_an_answer_that_breaks_all_its_servers_is_given_up() -> None:
    again = HEAD + completion("x", 5)
    script, running = rig_of(BEGINNING, again, again, again, again, again)
    async with running as rig:
        rig.join(MODELS)
        body = await stream(rig)
    assert text_of(body) == "abxxx"
    assert b'"error"' in body
    assert len(script.asked) == 4


async def test_an_answer_that_lacks_only_its_end_needs_no_other_server() -> None:
    script, running = rig_of(BEGINNING)
    async with running as rig:
        rig.join(MODELS)
        body = await stream(rig, body=chat(model="kept", stream=True, max_tokens=2))
    assert text_of(body) == "ab"
    assert b'"finish_reason":"length"' in body
    assert b'"base"' not in body
    assert body.endswith(b"data: [DONE]\n\n")
    assert len(script.asked) == 1
    assert rig.records.all[0].outcome is Outcome.OK


async def test_without_token_ids_the_client_gets_an_error_event() -> None:
    plain = HEAD + framed({"choices": [{"index": 0, "delta": {"content": "a"}}]})
    script, running = rig_of(plain)
    async with running as rig:
        rig.join(MODELS)
        body = await stream(rig)
    assert b'"error"' in body
    assert len(script.asked) == 1


async def test_services_with_it_off_are_not_asked_for_token_ids() -> None:
    script, running = rig_of(BEGINNING, pool_options=PoolOptions())
    async with running as rig:
        rig.join(MODELS)
        body = await stream(rig)
    assert "return_token_ids" not in script.asked[0][1]
    assert b'"error"' in body


@pytest.mark.parametrize(
    ("wants_ids", "rest"),
    [
        (True, completion("c") + completion("d", finish="stop")),
        (True, completion("c", finish="stop")),
        (False, framed(b'{"choices": 5}') + completion("d", 4, finish="stop")),
    ],
)
async def test_a_rest_that_cannot_be_passed_on_ends_with_an_error_event(
    wants_ids: bool,  # noqa: FBT001
    rest: bytes,
) -> None:
    _, running = rig_of(BEGINNING, HEAD + rest + END)
    async with running as rig:
        rig.join(MODELS)
        body = await stream(rig, body=chat(model="kept", stream=True, return_token_ids=wants_ids))
    assert text_of(body) == "ab"
    assert b'"error":' in body
    assert body.endswith(b"data: [DONE]\n\n")
    assert rig.records.all[0].outcome is Outcome.STREAM_ERROR


async def test_other_ids_than_the_client_has_end_the_stream_with_an_error_event() -> None:
    other = HEAD + completion("z", 77) + completion("d", 4, finish="stop") + END
    _, running = rig_of(
        BEGINNING + bundle("c", 3, 4), page(prompt="abc\ufffd"), page(prompt="abc"), other
    )
    async with running as rig:
        rig.join(MODELS)
        body = await stream(rig, body=chat(model="kept", stream=True, return_token_ids=True))
    assert text_of(body) == "abc"
    assert b'"error":' in body
    assert rig.records.all[0].outcome is Outcome.STREAM_ERROR


@pytest.mark.parametrize("wants_ids", [True, False])
async def test_a_break_behind_the_line_of_the_rests_first_event_repeats_nothing(
    wants_ids: bool,  # noqa: FBT001
) -> None:
    cut = HEAD + completion("c", 3, end=b"\n")
    script, running = rig_of(BEGINNING, cut, HEAD + completion("d", 4, finish="stop") + END)
    async with running as rig:
        rig.join(MODELS)
        body = await stream(rig, body=chat(model="kept", stream=True, return_token_ids=wants_ids))
    assert text_of(body) == "abcd"
    assert script.asked[2][1]["prompt"] == [7, 8, 1, 2, 3]
    assert rig.records.all[0].completion_tokens == 4


async def test_a_break_behind_the_line_with_the_finish_asks_for_no_more() -> None:
    cut = HEAD + completion("c", 3, finish="stop", end=b"\n")
    script, running = rig_of(BEGINNING, cut, REST)
    async with running as rig:
        rig.join(MODELS)
        body = await stream(rig)
    assert text_of(body) == "abc"
    assert body.endswith(b"data: [DONE]\n\n")
    assert len(script.asked) == 2
    assert rig.records.all[0].outcome is Outcome.OK


async def test_an_answer_whose_first_token_has_no_text_yet_is_continued() -> None:
    first = {"index": 0, "text": "", "token_ids": [1], "prompt_token_ids": [7, 8]}
    script, running = rig_of(HEAD + framed({"choices": [first]}), REST)
    async with running as rig, rig.client() as client:
        rig.join(MODELS)
        asked = {"model": "kept", "prompt": "x", "stream": True, "return_token_ids": True}
        client.post("/v1/completions", json.dumps(asked).encode())
        response = await client.response()
    assert response.status == 200
    events = [json.loads(e[6:]) for e in response.body.split(b"\n\n") if e.startswith(b"data: {")]
    choices = [choice for event in events for choice in event["choices"]]
    assert [choice["text"] for choice in choices] == ["c", "d"]
    assert [choice["prompt_token_ids"] for choice in choices] == [[7, 8], None]
    assert script.asked[1][1]["prompt"] == [7, 8]
    assert rig.records.all[0].outcome is Outcome.OK


async def test_what_a_retried_attempt_had_said_is_not_part_of_the_prompt() -> None:
    def first(name: str, end: bytes) -> bytes:
        choice = {"index": 0, "text": "", "token_ids": [1], "prompt_token_ids": [7, 8]}
        return HEAD + framed({"id": name, "choices": [choice]}, end=end)

    unseen, broken = first("unseen", b"\n"), first("one", b"\n\n") + completion("b", 2)
    script, running = rig_of(unseen, broken, REST, servers=3)
    async with running as rig, rig.client() as client:
        rig.join(MODELS)
        asked = {"model": "kept", "prompt": "x", "stream": True, "return_token_ids": True}
        client.post("/v1/completions", json.dumps(asked | {"max_tokens": 9}).encode())
        body = (await client.response()).body
    assert (script.asked[2][1]["prompt"], script.asked[2][1]["max_tokens"]) == ([7, 8, 1, 2], 7)
    assert b"unseen" not in body
    assert rig.records.all[0].completion_tokens == 4


async def test_a_client_that_waits_for_the_rest_in_vain_is_told_so() -> None:
    """The only server leaves, and the queue's timeout passes."""

    async def break_and_leave(peer: Peer) -> None:
        await peer.request()
        await peer.send(BEGINNING)
        rig.driver.deliver(BackendLeft(BackendId("s0")))

    policy = make_policy(SERVICE, queue=QueuePolicy(timeout_s=0.02))
    async with gateway(RawServer(break_and_leave), policy=policy, pool_options=OPTIONS) as rig:
        rig.join(MODELS)
        body = await stream(rig, body=chat(model="kept", stream=True, max_tokens=50))
        assert rig.in_flight == 0
    assert text_of(body) == "ab"
    assert b'"error"' in body
    assert body.endswith(b"data: [DONE]\n\n")
