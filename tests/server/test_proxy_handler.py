"""The record of every request that has ended."""

import logging

import pytest

from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.events import FailureKind
from gateway.scheduling.model import BackendId, LLMService, ServiceName, TargetModel
from gateway.scheduling.policy import QueuePolicy
from gateway.telemetry.request_record import Outcome, RequestRecord
from tests.server.gateway_rig import CHAT, Rig, chat, gateway, make_policy
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

USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n'
STREAM = STREAM_HEAD + chunked(event("a"), event("b", "stop"), USAGE, DONE) + LAST_CHUNK
SERVICE = LLMService(ServiceName("chat"), "shown", (TargetModel("base"),), priority=3)


async def record_of(rig: Rig, body: bytes, path: str = CHAT) -> RequestRecord:
    async with rig.client() as client:
        client.post(path, body, "X-Request-Id: mine", "Content-Type: application/json")
        await client.response()
    (record,) = rig.records.all
    assert record.request_id == "mine"
    assert record.lease_id == "gw-0"
    assert record.path == CHAT
    return record


async def test_tokens_of_a_stream_without_usage_are_estimated_from_its_events() -> None:
    stream = STREAM_HEAD + chunked(event("a"), event("b", "stop"), DONE) + LAST_CHUNK
    async with gateway(serving(stream), services=(SERVICE,)) as rig:
        record = await record_of(rig, chat(model="shown", stream=True))
        assert (record.prompt_tokens, record.completion_tokens) == (None, 2)
        assert record.tpot_s is not None


async def test_a_stream_is_recorded_with_its_times_and_tokens() -> None:
    async with gateway(serving(STREAM), services=(SERVICE,)) as rig:
        record = await record_of(rig, chat(model="shown", stream=True), f"{CHAT}?a=b")
        assert (record.outcome, record.status, record.reason) == (Outcome.OK, 200, None)
        assert (record.pool, record.service, record.priority) == ("pool", "chat", 3)
        assert (record.model, record.target_model) == ("shown", "base")
        assert (record.backend_id, record.attempts) == (BackendId("s0"), 1)
        assert (record.prompt_tokens, record.completion_tokens) == (7, 2)
        assert record.streamed
        assert record.ttft_s is not None
        assert record.dispatch_ttft_s is not None
        assert 0 < record.dispatch_ttft_s < record.ttft_s < record.e2e_s
        assert record.overhead_s is not None
        assert 0 <= record.queue_s < record.ttft_s
        assert record.forecast_ttft_s is not None
        assert record.forecast_tpot_s is not None


async def test_an_answer_in_one_piece_shows_no_first_token() -> None:
    body = b'{"usage":{"prompt_tokens":7,"completion_tokens":2}}'
    async with gateway(serving(ok(body, b"content-type: application/json"))) as rig:
        record = await record_of(rig, chat())
        assert (record.outcome, record.streamed) == (Outcome.OK, False)
        assert (record.ttft_s, record.dispatch_ttft_s) == (None, None)
        assert (record.prompt_tokens, record.completion_tokens) == (7, 2)


async def test_a_request_that_was_not_understood_is_a_client_error() -> None:
    async with gateway() as rig:
        record = await record_of(rig, b"nonsense")
        assert (record.outcome, record.status) == (Outcome.CLIENT_ERROR, 400)
        assert (record.model, record.service, record.backend_id) == (None, None, None)


async def test_a_refusal_by_the_server_is_a_client_error() -> None:
    async with gateway(serving(b"HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n")) as rig:
        record = await record_of(rig, chat())
        assert (record.outcome, record.status) == (Outcome.CLIENT_ERROR, 400)


async def test_a_request_that_expired_in_the_queue_is_recorded_with_the_reason() -> None:
    policy = make_policy(queue=QueuePolicy(timeout_s=0.01))
    async with gateway(policy=policy) as rig:
        record = await record_of(rig, chat())
        assert (record.outcome, record.status) == (Outcome.EXPIRED, 503)
        assert record.reason is RefusalReason.NO_BACKEND
        assert record.attempts == 0


async def test_a_request_that_every_server_failed_is_recorded_with_the_last_failure() -> None:
    async def send_garbage(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"SSH-2.0\r\n")

    async with gateway(RawServer(send_garbage), RawServer(send_garbage)) as rig:
        record = await record_of(rig, chat())
        assert (record.outcome, record.status) == (Outcome.FAILED, 502)
        assert record.reason is FailureKind.PROTOCOL
        assert record.attempts == 2


async def test_a_stream_that_broke_is_recorded_as_such() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, chunked(event("a")))

    async with gateway(RawServer(script)) as rig:
        record = await record_of(rig, chat(stream=True))
        assert (record.outcome, record.status) == (Outcome.STREAM_ERROR, 200)
        assert record.reason is FailureKind.RESET


async def test_a_stream_whose_first_token_was_not_passed_on_yet_is_answered_with_an_error() -> None:
    """A change of the body holds the unfinished line back; the scheduler knows of the token."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, chunked(event("a").replace(b"\n", b"\r")))

    async with gateway(RawServer(script), services=(SERVICE,)) as rig:
        record = await record_of(rig, chat(model="shown", stream=True))
        assert (record.outcome, record.status) == (Outcome.STREAM_ERROR, 502)


@pytest.mark.interpreted
async def test_a_bug_in_the_gateway_is_recorded_as_its_failure(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(serving(STREAM)) as rig:
        monkeypatch.setattr(rig.backends, "client", {}.__getitem__)
        with caplog.at_level(logging.CRITICAL):
            async with rig.client() as client:
                client.post(CHAT, chat())
                assert (await client.response()).status == 500
        (record,) = rig.records.all
        assert (record.outcome, record.status) == (Outcome.FAILED, 500)
        assert rig.in_flight == 0
