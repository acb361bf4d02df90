"""The three stages in which a client may go, streamed or not."""

import asyncio

import pytest

from gateway.scheduling.events import RequestCancelled, ResponseFinished
from gateway.server.client_channel import ClientChannel
from gateway.server.request_progress import RequestProgress
from gateway.telemetry.request_record import Outcome
from tests.server.gateway_rig import CHAT, chat, gateway, make_policy
from tests.server.raw_client import RawClient
from tests.server.raw_server import (
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    Peer,
    RawServer,
    chunked,
    event,
    eventually,
    serving,
)


async def stay_silent(peer: Peer) -> None:
    await peer.request()
    await peer.gone()


async def leave(client: RawClient, *, rudely: bool) -> None:
    if rudely:
        client.writer.transport.abort()
    else:
        client.writer.close()


@pytest.mark.parametrize("rudely", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_while_queued_is_removed_at_once(
    *, stream: bool, rudely: bool
) -> None:
    server = RawServer(stay_silent)
    async with (
        gateway(server, policy=make_policy(slots=1)) as rig,
        rig.client() as first,
        rig.client() as second,
    ):
        first.post(CHAT, chat())
        await eventually(lambda: rig.in_flight)
        second.post(CHAT, chat(stream=stream))
        await eventually(lambda: rig.driver.snapshot().queued_requests == 1)
        await leave(second, rudely=rudely)
        await eventually(lambda: rig.driver.snapshot().queued_requests == 0)
        assert server.connections == 1
        assert rig.records.all[-1].status == 499
        assert rig.records.all[-1].outcome is Outcome.CANCELLED


@pytest.mark.parametrize("rudely", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_the_first_byte_closes_the_upstream_at_once(
    *, stream: bool, rudely: bool
) -> None:
    seen: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        seen.append("asked")
        await peer.gone()
        seen.append("gone")

    async with gateway(RawServer(script)) as rig:
        async with rig.client() as client:
            client.post(CHAT, chat(stream=stream))
            await eventually(lambda: seen)
            await leave(client, rudely=rudely)
        await eventually(lambda: seen == ["asked", "gone"])
        await eventually(lambda: rig.in_flight == 0)
        assert len(rig.events.of_type(RequestCancelled)) == 1
        assert rig.records.all[-1].status == 499
        assert rig.records.all[-1].outcome is Outcome.CANCELLED


@pytest.mark.parametrize("rudely", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_in_mid_answer_closes_the_upstream_at_once(
    *, stream: bool, rudely: bool
) -> None:
    seen: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        if stream:
            await peer.send(STREAM_HEAD, chunked(event("hi")))
        else:
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await peer.gone()
        seen.append("gone")

    async with gateway(RawServer(script)) as rig:
        async with rig.client() as client:
            client.post(CHAT, chat(stream=stream))
            await client.head()
            await leave(client, rudely=rudely)
        await eventually(lambda: seen)
        await eventually(lambda: rig.in_flight == 0)
        assert len(rig.events.of_type(RequestCancelled)) == 1
        record = rig.records.all[-1]
        assert (record.status, record.outcome) == (200, Outcome.CANCELLED)
        assert (record.ttft_s is not None) == stream


@pytest.mark.parametrize("failed", [False, True])
async def test_a_client_that_leaves_with_its_whole_answer_has_not_cancelled(
    *, failed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = event("", None if failed else "stop")
    answer = STREAM_HEAD + chunked(event("hi"), end, DONE) + LAST_CHUNK
    write = ClientChannel.write

    def write_and_lose_the_client(channel: ClientChannel, data: bytes, *, last: bool) -> None:
        write(channel, data, last=last)
        # The loop learns of it before the task that waits for the end of the answer runs.
        transport = channel._connection.transport
        assert transport is not None
        transport.abort()

    monkeypatch.setattr(ClientChannel, "write", write_and_lose_the_client)
    async with gateway(serving(answer)) as rig, rig.client() as client:
        client.post(CHAT, chat(stream=True))
        await eventually(lambda: rig.records.all)
        (record,) = rig.records.all
        wanted = Outcome.STREAM_ERROR if failed else Outcome.OK
        assert (record.outcome, record.status) == (wanted, 200)
        assert not rig.events.of_type(RequestCancelled)
        assert rig.in_flight == 0


@pytest.mark.parametrize("rudely", [False, True])
@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
async def test_a_client_that_leaves_when_it_has_read_the_end_of_a_stream_has_had_it(
    path: str, *, rudely: bool
) -> None:
    end = DONE if path == CHAT else b'data: {"type": "response.completed"}\n\n'

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, chunked(event("hi"), event("", "stop") + end))
        await peer.gone()

    async with gateway(RawServer(script)) as rig:
        async with rig.client() as client:
            client.post(path, chat(stream=True))
            await client.reader.readuntil(end)
            await leave(client, rudely=rudely)
        await eventually(lambda: rig.records.all)
        assert rig.records.all[-1].outcome is Outcome.OK
        assert rig.events.of_type(ResponseFinished)[0].ok
        assert rig.in_flight == 0


async def test_a_client_that_leaves_before_the_end_of_a_stream_has_not_had_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, chunked(event("hi"), event("", "stop")))
        await peer.gone()

    async with gateway(RawServer(script)) as rig:
        async with rig.client() as client:
            client.post(CHAT, chat(stream=True))
            await client.reader.readuntil(event("", "stop"))
        await eventually(lambda: rig.records.all)
        assert rig.records.all[-1].outcome is Outcome.CANCELLED


@pytest.mark.parametrize("status", [200, 404])
async def test_an_answer_that_ends_in_the_moment_when_all_is_cancelled_has_ended(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = b"HTTP/1.1 %d Some\r\ncontent-length: 2\r\n\r\n{}" % status
    write = ClientChannel.write
    async with gateway(serving(answer)) as rig, rig.client() as client:

        def write_and_cut(channel: ClientChannel, data: bytes, *, last: bool) -> None:
            write(channel, data, last=last)
            rig.front_end.cut()

        monkeypatch.setattr(ClientChannel, "write", write_and_cut)
        client.post(CHAT, chat())
        assert (await client.response()).body == b"{}"
        await eventually(lambda: rig.records.all)
        ended = Outcome.OK if status == 200 else Outcome.CLIENT_ERROR
        assert rig.records.all[-1].outcome is ended
        assert len(rig.events.of_type(ResponseFinished)) == 1


@pytest.mark.parametrize(
    ("outcome", "status"), [(Outcome.REFUSED, 499), (Outcome.CANCELLED, 499), (None, 500)]
)
def test_who_left_before_an_answer_could_be_written_is_logged_as_having_left(
    outcome: Outcome | None, status: int
) -> None:
    progress = RequestProgress(request_id="r", lease_id="l", path=CHAT, started_at=0.0)
    if outcome is not None:
        progress.end(outcome)
    assert progress.record(status=0, now=1.0).status == status


async def test_hundreds_of_clients_that_leave_at_random_leave_nothing_behind() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, chunked(event("hi")))
        while True:
            await asyncio.sleep(0.002)
            await peer.send(chunked(event("more")))

    server = RawServer(script)
    async with gateway(server, policy=make_policy(slots=50)) as rig:

        async def visit(number: int) -> None:
            async with rig.client() as client:
                client.post(CHAT, chat(stream=True))
                for _ in range(number % 10):
                    await asyncio.sleep(0.001)

        await asyncio.gather(*(visit(n) for n in range(300)))
        await eventually(lambda: rig.in_flight == 0)
        await eventually(lambda: not server.open_peers)
        assert sum(client.open_connections for client in rig.clients.values()) == 0
