"""A Non-Critical request that has to give its place to a Critical one, over real sockets."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.events import DispatchFailed, RequestCancelled
from gateway.scheduling.model import CRITICAL
from gateway.scheduling.policy import QueuePolicy
from gateway.telemetry.request_record import Outcome
from tests.builders import make_service
from tests.server.gateway_rig import CHAT, Rig, chat, gateway, make_policy
from tests.server.raw_client import RawClient
from tests.server.raw_server import (
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    Peer,
    RawServer,
    Script,
    chunked,
    event,
    eventually,
)

SERVICES = (make_service("urgent", priority=CRITICAL), make_service("batch"))
POLICY = make_policy(*SERVICES, slots=1, queue=QueuePolicy(preempts=True))


async def answer_the_urgent(peer: Peer) -> None:
    """Answer one service; leave the other without a byte until its client is gone."""
    request = await peer.request()
    if b"urgent?" in request.body:
        await peer.send(STREAM_HEAD + chunked(event("yes", "stop"), DONE) + LAST_CHUNK)
    else:
        await peer.gone()


async def begin(peer: Peer) -> None:
    await peer.request()
    await peer.send(STREAM_HEAD + chunked(event("hi")))
    await peer.gone()


def ask(service: str) -> bytes:
    question = [{"role": "user", "content": f"{service}?"}]
    return chat(model=service, messages=question, stream=True)


async def ended(rig: Rig, requests: int) -> None:
    await eventually(lambda: len(rig.records.all) == requests)
    assert rig.in_flight == 0


@asynccontextmanager
async def contested(script: Script) -> AsyncIterator[tuple[Rig, RawClient, RawClient]]:
    """The only place is taken by a batch request without a token, and an urgent one comes."""
    async with (
        gateway(RawServer(script), policy=POLICY) as rig,
        rig.client() as batch,
        rig.client() as urgent,
    ):
        batch.post(CHAT, ask("batch"))
        await eventually(lambda: rig.servers[0].open_peers)
        urgent.post(CHAT, ask("urgent"))
        yield rig, batch, urgent


async def test_it_gets_a_503_and_the_other_its_answer() -> None:
    async with contested(answer_the_urgent) as (rig, first, second):
        refused, answered = await first.response(), await second.response()
        assert (refused.status, answered.status) == (503, 200)
        assert int(refused.headers["retry-after"]) >= 1
        error = json.loads(refused.body)["error"]
        assert (error["type"], error["code"]) == ("preempted", 503)
        assert b"yes" in answered.body
        await ended(rig, 2)
        batch, urgent = rig.records.all
        assert (batch.service, batch.outcome) == ("batch", Outcome.REFUSED)
        assert (batch.reason, urgent.outcome) == (RefusalReason.PREEMPTED, Outcome.OK)
        assert len(rig.events.of_type(RequestCancelled)) == 1
        assert not rig.events.of_type(DispatchFailed), "the server is not to blame"


async def test_its_client_may_ask_again_on_the_same_connection() -> None:
    async with contested(answer_the_urgent) as (_, first, second):
        assert (await first.response()).status == 503
        assert (await second.response()).status == 200
        first.post(CHAT, ask("urgent"))
        assert (await first.response()).status == 200


async def test_the_server_sees_its_connection_close() -> None:
    left: list[str] = []

    async def stay_silent(peer: Peer) -> None:
        request = await peer.request()
        await peer.gone()
        left.append("batch" if b"batch?" in request.body else "urgent")

    async with contested(stay_silent) as (rig, _, _):
        await eventually(lambda: left == ["batch"])
        assert rig.driver.snapshot().backends[0].requests == 1


async def test_one_that_streams_is_left_alone() -> None:
    async with (
        gateway(RawServer(begin), policy=POLICY) as rig,
        rig.client() as first,
        rig.client() as second,
    ):
        first.post(CHAT, ask("batch"))
        await eventually(lambda: rig.driver.snapshot().backends[0].decoding)
        second.post(CHAT, ask("urgent"))
        await eventually(lambda: rig.driver.snapshot().queued_requests)
        assert rig.records.all == []
