"""Answers on their way through: the bytes, what is noted of them, what becomes of broken ones."""

import asyncio
import random

import pytest

from gateway.scheduling.events import (
    DispatchFailed,
    FailureKind,
    FirstTokenReceived,
    ResponseFinished,
)
from gateway.server.options import BackendTimeouts
from tests.server.gateway_rig import CHAT, chat, gateway
from tests.server.raw_server import (
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    Peer,
    RawServer,
    chunked,
    event,
    ok,
    serving,
)
from tests.server.recordings import read_recording

ANSWERS = [
    "chat_nonstream",
    "chat_stream_usage",
    "chat_stream_usage_continuous",
    "chat_stop_eos",
    "chat_logprobs_stream",
    "chat_return_token_ids_stream",
    "comp_stream_usage",
    "comp_n2_stream",
]
REFUSALS = ["err_unknown_model_chat", "chat_priority_string"]
OVERLOADS = ["err_queue_full", "burst_over_queue_limit_5"]
BROKEN = ["kill9_engine_midstream", "sigterm_midstream_chat"]


def replaying(response: bytes, *, seed: int | None = None) -> RawServer:
    """A server that answers with recorded bytes, whole or in random pieces."""

    async def script(peer: Peer) -> None:
        await peer.request()
        if seed is None:
            await peer.send(response)
            return
        rng, start = random.Random(seed), 0
        while start < len(response):
            size = rng.choice((1, 7, 100, 1_000))
            await peer.send(response[start : start + size])
            await asyncio.sleep(0)
            start += size

    return RawServer(script)


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("name", ANSWERS + REFUSALS + OVERLOADS + BROKEN)
async def test_recorded_answers_pass_byte_for_byte(name: str, seed: int | None) -> None:
    recording = read_recording(name)
    async with (
        gateway(replaying(recording.response, seed=seed)) as rig,
        rig.client() as client,
    ):
        client.post(recording.path, recording.request_body.replace(b'"nope"', b'"base"'))
        response = await client.response()
        assert response.status == recording.status
        assert response.body == recording.body
        assert rig.in_flight == 0


@pytest.mark.parametrize("name", ANSWERS)
async def test_recorded_answers_count_as_finished_with_their_usage(name: str) -> None:
    recording = read_recording(name)
    async with gateway(replaying(recording.response)) as rig, rig.client() as client:
        client.post(recording.path, recording.request_body)
        await client.response()
        (finished,) = rig.events.of_type(ResponseFinished)
        assert finished.ok
        if b'"usage":{' in recording.body:
            assert finished.usage.completion_tokens is not None
        streamed = b"data: " in recording.body
        assert bool(finished.usage.events) == streamed
        assert len(rig.events.of_type(FirstTokenReceived)) == streamed


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_of_the_request_is_not_the_servers_fault(name: str) -> None:
    recording = read_recording(name)
    async with gateway(replaying(recording.response)) as rig, rig.client() as client:
        client.post(recording.path, recording.request_body.replace(b'"nope"', b'"base"'))
        await client.response()
        (finished,) = rig.events.of_type(ResponseFinished)
        assert not finished.ok
        assert not rig.events.of_type(DispatchFailed)


@pytest.mark.parametrize("name", BROKEN)
async def test_an_error_event_in_a_stream_counts_as_failed_although_it_ends_with_done(
    name: str,
) -> None:
    recording = read_recording(name)
    assert recording.body.endswith(DONE)
    async with gateway(replaying(recording.response)) as rig, rig.client() as client:
        client.post(recording.path, recording.request_body)
        await client.response()
        (failed,) = rig.events.of_type(DispatchFailed)
        assert (failed.kind, failed.retryable) == (FailureKind.STREAM_ERROR, False)


@pytest.mark.parametrize("name", OVERLOADS)
async def test_an_overloaded_server_is_passed_over_for_another(name: str) -> None:
    recording = read_recording(name)
    answer = STREAM_HEAD + chunked(event("hi"), event("", "stop"), DONE) + LAST_CHUNK
    async with (
        gateway(replaying(recording.response), serving(answer)) as rig,
        rig.client() as client,
    ):
        for _ in range(4):
            client.post(CHAT, chat(stream=True))
            response = await client.response()
            assert response.body == event("hi") + event("", "stop") + DONE
        failures = rig.events.of_type(DispatchFailed)
        assert failures
        assert {failure.kind for failure in failures} == {FailureKind.OVERLOADED}


@pytest.mark.parametrize("code", [400, 429, 501])
async def test_an_error_event_that_blames_the_request_is_its_answer(code: int) -> None:
    error = b'data: {"error": {"message": "no", "code": %d}}\n\n' % code
    answer = STREAM_HEAD + chunked(error, DONE) + LAST_CHUNK
    async with gateway(serving(answer), serving(answer)) as rig, rig.client() as client:
        client.post(CHAT, chat(stream=True))
        assert (await client.response()).body == error + DONE
        assert sum(len(server.requests) for server in rig.servers) == 1
        assert not rig.events.of_type(DispatchFailed)


async def test_a_stream_without_a_finish_reason_counts_as_failed() -> None:
    answer = STREAM_HEAD + chunked(event("hi"), DONE) + LAST_CHUNK
    async with gateway(serving(answer)) as rig, rig.client() as client:
        client.post(CHAT, chat(stream=True))
        assert (await client.response()).body == event("hi") + DONE
        (failed,) = rig.events.of_type(DispatchFailed)
        assert failed.kind is FailureKind.STREAM_ERROR


@pytest.mark.parametrize(
    "head",
    [STREAM_HEAD, b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"],
    ids=["chunked", "until the connection ends"],
)
async def test_a_stream_that_its_server_ends_too_soon_ends_with_an_error_event(head: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if head is STREAM_HEAD:
            await peer.send(head + chunked(event("hi")) + LAST_CHUNK)
        else:
            await peer.send(head + event("hi"))

    async with gateway(RawServer(script)) as rig, rig.client() as client:
        client.post(CHAT, chat(stream=True))
        body = (await client.response()).body
        assert body.startswith(event("hi"))
        assert b'"type":"stream_error"' in body
        assert body.endswith(DONE)
        assert rig.records.all[-1].reason is FailureKind.STREAM_ERROR


@pytest.mark.parametrize("nothing", [b"", b": ping\n\n", DONE], ids=["empty", "ping", "done"])
async def test_a_stream_without_an_answer_is_asked_for_elsewhere(nothing: bytes) -> None:
    empty = STREAM_HEAD + chunked(*([nothing] if nothing else [])) + LAST_CHUNK
    good = STREAM_HEAD + chunked(event("hi"), event("", "stop"), DONE) + LAST_CHUNK
    async with gateway(serving(empty), serving(good)) as rig, rig.client() as client:
        client.post(CHAT, chat(stream=True))
        assert (await client.response()).body == event("hi") + event("", "stop") + DONE
        (failed,) = rig.events.of_type(DispatchFailed)
        assert failed.kind is FailureKind.STREAM_ERROR


async def test_a_stream_that_no_server_has_an_answer_in_is_a_502() -> None:
    async with gateway(serving(STREAM_HEAD + LAST_CHUNK)) as rig, rig.client() as client:
        client.post(CHAT, chat(stream=True))
        assert (await client.response()).status == 502


async def test_what_came_in_one_read_goes_out_in_one_chunk() -> None:
    answer = STREAM_HEAD + chunked(event("a"), event("b"), event("", "stop"), DONE) + LAST_CHUNK
    async with gateway(serving(answer)) as rig, rig.client() as client:
        client.post(CHAT, chat(stream=True))
        assert len((await client.response()).chunks) == 1


async def test_the_first_token_is_neither_the_head_nor_the_announcement_of_the_role() -> None:
    go = asyncio.Event()
    role = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, chunked(role))
        await go.wait()
        await peer.send(chunked(event("hi"), event("", "stop"), DONE), LAST_CHUNK)

    async with gateway(RawServer(script)) as rig, rig.client() as client:
        client.post(CHAT, chat(stream=True))
        await client.head()
        assert await client.chunk() == role
        assert not rig.events.of_type(FirstTokenReceived)
        go.set()
        assert event("hi") in await client.chunk()
        assert len(rig.events.of_type(FirstTokenReceived)) == 1


async def test_no_byte_goes_to_the_client_before_the_first_byte_of_the_body() -> None:
    """So that a server that dies after its head can still be replaced by another."""
    broken = RawServer(_head_only)
    answer = STREAM_HEAD + chunked(event("hi"), event("", "stop"), DONE) + LAST_CHUNK
    async with gateway(broken, serving(answer)) as rig, rig.client() as client:
        for _ in range(4):
            client.post(CHAT, chat(stream=True))
            assert (await client.response()).body.startswith(event("hi"))
        assert broken.connections
        assert {f.kind for f in rig.events.of_type(DispatchFailed)} == {FailureKind.RESET}


async def _head_only(peer: Peer) -> None:
    await peer.request()
    await peer.send(STREAM_HEAD)


async def test_a_stream_whose_server_dies_ends_with_an_error_event_in_good_order() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, chunked(event("hi"), b'data: {"choi'))

    async with gateway(RawServer(script)) as rig, rig.client() as client:
        client.post(CHAT, chat(stream=True))
        response = await client.response()
        assert response.body.startswith(event("hi") + b'data: {"choi\n\ndata: {"error":{')
        assert response.body.endswith(b"\n\n" + DONE)
        (failed,) = rig.events.of_type(DispatchFailed)
        assert (failed.kind, failed.retryable) == (FailureKind.RESET, False)
        client.get("/health")
        assert (await client.response()).status == 200


async def test_a_stream_whose_server_stalls_ends_with_an_error_event() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, chunked(event("hi")))
        await peer.gone()

    timeouts = BackendTimeouts(stall_s=0.01, sweep_s=0.002)
    async with gateway(RawServer(script), timeouts=timeouts) as rig, rig.client() as client:
        client.post(CHAT, chat(stream=True))
        assert b'"code":504' in (await client.response()).body
        (failed,) = rig.events.of_type(DispatchFailed)
        assert failed.kind is FailureKind.STALLED


async def test_a_body_with_a_length_whose_server_dies_ends_with_the_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")

    async with gateway(RawServer(script)) as rig, rig.client() as client:
        client.post(CHAT, chat())
        _, _, headers = await client.head()
        assert headers["content-length"] == "100"
        assert await client.reader.read() == b"half"
        assert rig.in_flight == 0


async def test_chunks_that_are_no_events_end_with_the_connection_and_without_a_last_chunk() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunked(b"half"))

    async with gateway(RawServer(script)) as rig, rig.client() as client:
        client.post(CHAT, chat())
        await client.head()
        assert await client.reader.read() == chunked(b"half")


async def test_a_body_that_ends_with_the_connection_is_reset_when_its_server_dies() -> None:
    """An orderly close would look like the end of the body to an HTTP/1.0 client."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunked(b"half"))

    async with gateway(RawServer(script)) as rig, rig.client() as client:
        client.post(CHAT, chat(), version="1.0")
        with pytest.raises(ConnectionResetError):
            await client.reader.read()


async def test_headers_of_one_hop_and_of_other_origins_do_not_pass() -> None:
    answer = ok(
        b"{}",
        b"content-type: application/json",
        b"keep-alive: timeout=5",
        b"connection: keep-alive, x-hop",
        b"x-hop: 1",
        b"access-control-allow-origin: *",
        b"x-kept: 1",
    )
    async with gateway(serving(answer)) as rig, rig.client() as client:
        client.post(CHAT, chat())
        headers = (await client.response()).headers
        assert headers["x-kept"] == "1"
        assert not {"keep-alive", "connection", "x-hop", "access-control-allow-origin"} & set(
            headers
        )


async def test_a_stream_of_events_forbids_buffering_and_caching() -> None:
    answer = STREAM_HEAD + chunked(event("", "stop"), DONE) + LAST_CHUNK
    async with gateway(serving(answer)) as rig, rig.client() as client:
        client.post(CHAT, chat(stream=True))
        headers = (await client.response()).headers
        assert headers["x-accel-buffering"] == "no"
        assert headers["cache-control"] == "no-cache"


async def test_a_compressed_answer_passes_unread() -> None:
    answer = ok(b"\x1f\x8b...", b"content-type: application/json", b"content-encoding: gzip")
    async with gateway(serving(answer)) as rig, rig.client() as client:
        client.post(CHAT, chat())
        response = await client.response()
        assert response.headers["content-encoding"] == "gzip"
        assert response.body == b"\x1f\x8b..."


async def test_a_huge_error_is_passed_on_instead_of_being_held() -> None:
    body = b"x" * 1_000_000
    answer = b"HTTP/1.1 500 Oops\r\ncontent-length: 1000000\r\n\r\n" + body
    async with gateway(serving(answer), serving(answer)) as rig, rig.client() as client:
        client.post(CHAT, chat())
        response = await client.response()
        assert (response.status, response.reason, response.body) == (500, "Oops", body)
        (failed,) = rig.events.of_type(DispatchFailed)
        assert (failed.kind, failed.retryable) == (FailureKind.SERVER_ERROR, False)
