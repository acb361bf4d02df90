"""Whole-request deadlines, of a service and by header, wherever the request is when they pass."""

import asyncio
import json

import pytest

from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.events import RequestCancelled
from gateway.scheduling.model import ServiceName
from gateway.scheduling.policy import QueuePolicy
from gateway.server.options import PoolOptions
from gateway.telemetry.request_record import Outcome
from tests.builders import make_service
from tests.server.gateway_rig import CHAT, Rig, chat, crowded_gateway, gateway
from tests.server.raw_server import (
    DONE,
    STREAM_HEAD,
    Peer,
    RawServer,
    chunked,
    event,
    eventually,
    ok,
    serving,
)

HEADER = "x-gateway-deadline-ms"
SOON = f"{HEADER}: 30"


async def stay_silent(peer: Peer) -> None:
    await peer.request()
    await peer.gone()


async def begin(peer: Peer) -> None:
    await peer.request()
    await peer.send(STREAM_HEAD + chunked(event("hi")))
    await peer.gone()


async def begin_json(peer: Peer) -> None:
    await peer.request()
    await peer.send(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
    )
    await peer.gone()


async def assert_over(rig: Rig, outcome: Outcome) -> None:
    """It is told as what it is, and nothing is left of it, at the server neither."""
    await eventually(lambda: rig.records.all)
    record = rig.records.all[-1]
    assert (record.outcome, record.reason) == (outcome, RefusalReason.DEADLINE)
    assert rig.in_flight == 0
    await eventually(lambda: not any(server.open_peers for server in rig.servers))


async def test_before_the_first_byte_it_is_a_504_and_the_server_is_left_at_once() -> None:
    async with gateway(RawServer(stay_silent)) as rig, rig.client() as client:
        client.post(CHAT, chat(), SOON)
        response = await client.response()
        assert response.status == 504
        assert response.headers["x-should-retry"] == "false"
        error = json.loads(response.body)["error"]
        assert (error["type"], error["code"]) == ("deadline", 504)
        await assert_over(rig, Outcome.EXPIRED)


async def test_in_the_queue_it_is_a_504_and_the_queue_is_left() -> None:
    queue = QueuePolicy(timeout_s=60.0)
    async with crowded_gateway(RawServer(stay_silent), queue=queue) as (rig, client):
        client.post(CHAT, chat(), SOON)
        assert (await client.response()).status == 504
        assert rig.driver.snapshot().queued_requests == 0
        assert rig.events.of_type(RequestCancelled)


async def test_in_mid_stream_it_is_an_error_event_and_the_server_is_left_at_once() -> None:
    async with gateway(RawServer(begin)) as rig, rig.client() as client:
        client.post(CHAT, chat(stream=True), f"{HEADER}: 60")
        body = (await client.response()).body
        assert body.startswith(event("hi"))
        assert b'"type":"deadline"' in body
        assert body.endswith(DONE)
        await assert_over(rig, Outcome.STREAM_ERROR)


async def test_in_the_middle_of_a_whole_answer_the_connection_is_cut() -> None:
    async with gateway(RawServer(begin_json)) as rig, rig.client() as client:
        client.post(CHAT, chat(), f"{HEADER}: 60")
        with pytest.raises(asyncio.IncompleteReadError):
            await client.response()
        await assert_over(rig, Outcome.STREAM_ERROR)


async def test_a_service_has_its_own_and_a_client_can_only_ask_for_less() -> None:
    options = PoolOptions(deadlines={ServiceName("chat"): 0.03})
    async with (
        gateway(
            RawServer(stay_silent), services=(make_service("chat"),), pool_options=options
        ) as rig,
        rig.client() as client,
    ):
        for header in ("x-a: b", f"{HEADER}: 86400000"):
            client.post(CHAT, chat(model="chat"), header)
            assert (await client.response()).status == 504
        await assert_over(rig, Outcome.EXPIRED)


@pytest.mark.parametrize("value", ["0", "-1", "soon", "", "86400001", "1e3", "nan", "1 2"])
async def test_a_deadline_that_is_none_is_refused(value: str) -> None:
    server = serving(ok(b"{}"))
    async with gateway(server) as rig, rig.client() as client:
        client.post(CHAT, chat(), f"{HEADER}: {value}")
        response = await client.response()
        assert response.status == 400
        error = json.loads(response.body)["error"]
        assert error["param"] == HEADER
        assert "milliseconds" in error["message"]
        assert not server.requests


async def test_an_answer_in_time_is_not_touched_and_the_server_hears_nothing_of_it() -> None:
    server = serving(ok(b"{}"))
    async with gateway(server) as rig, rig.client() as client:
        client.post(CHAT, chat(), f"{HEADER}: 60000")
        response = await client.response()
        assert (response.status, response.body) == (200, b"{}")
        assert server.requests[0].header(HEADER) is None
