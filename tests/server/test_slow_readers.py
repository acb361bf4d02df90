"""Backpressure, both ways."""

import asyncio
import json
import socket
from dataclasses import replace

import pytest

from gateway.server.client_connection import ClientConnection
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
    eventually,
    ok,
    serving,
    until_still,
)

ANSWER = ok(b'{"answer":1}', b"content-type: application/json")


async def test_a_client_that_reads_slowly_slows_only_its_own_server_down() -> None:
    size, sent = 30_000_000, 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        peer.writer.transport.set_write_buffer_limits(high=0)
        request = await peer.request()
        if b"big" not in request.body:
            await peer.send(ANSWER)
            return
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while sent < size:
            await peer.send(b"x" * 100_000)
            sent += 100_000

    timeouts = BackendTimeouts(stall_s=0.1, sweep_s=0.005)
    async with (
        gateway(RawServer(script), timeouts=timeouts) as rig,
        rig.client() as slow,
        rig.client() as other,
    ):
        slow.post(CHAT, chat(messages=["big"]))
        await slow.head()
        await until_still(lambda: sent, for_s=0.2)
        assert sent < size
        other.post(CHAT, chat())
        assert (await other.response()).status == 200
        assert len(await slow.reader.readexactly(size)) == size
        slow.get("/health")
        assert (await slow.response()).status == 200


async def test_a_connection_that_went_back_to_the_pool_is_no_longer_the_clients_to_pause() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post(CHAT, chat())
        assert (await client.response()).status == 200
        (connection,) = rig.listener.connections
        assert isinstance(connection, ClientConnection)
        assert connection._flow is None


async def test_a_client_that_does_not_read_at_all_is_hung_up_on() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD)
        while True:
            await peer.send(chunked(b"x" * 100_000))

    timeouts = BackendTimeouts(slow_reader_s=0.02, sweep_s=0.002)
    server = RawServer(script)
    async with gateway(server, timeouts=timeouts) as rig, rig.client() as client:
        client.post(CHAT, chat(stream=True))
        await eventually(lambda: rig.records.all)
        await eventually(lambda: not server.open_peers)
        assert rig.in_flight == 0
        with pytest.raises(ConnectionError):
            await client.reader.read(-1)


async def test_a_server_that_reads_slowly_gets_a_large_request_whole() -> None:
    async def script(peer: Peer) -> None:
        server.requests.append(await peer.request())
        await peer.send(ANSWER)

    server = RawServer(script)
    async with gateway(server) as rig, rig.client() as client:
        body = chat(user="x" * 20_000_000)
        client.post(CHAT, body)
        assert (await client.response()).status == 200
        assert server.requests[0].body == body


async def test_streams_side_by_side_keep_their_bytes() -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            name = json.loads(request.body)["user"]
            await peer.send(STREAM_HEAD)
            for n in range(20):
                await peer.send(chunked(event(f"{name}-{n}")))
                await asyncio.sleep(0)
            await peer.send(chunked(event("", "stop"), DONE), LAST_CHUNK)

    async with gateway(RawServer(script), RawServer(script)) as rig:

        async def ask(name: str) -> None:
            async with rig.client() as client:
                for _ in range(2):
                    client.post(CHAT, chat(stream=True, user=name))
                    expected = b"".join(event(f"{name}-{n}") for n in range(20))
                    body = (await client.response()).body
                    assert body == expected + event("", "stop") + DONE

        await asyncio.gather(*(ask(f"u{n}") for n in range(50)))
        assert rig.in_flight == 0


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has this")
async def test_a_client_that_never_reads_the_end_of_its_answer_is_dropped() -> None:
    """Its server is done, and nobody but the system looks at what is still on its way."""
    size = 6_000_000
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size
    async with gateway(serving(answer)) as rig:
        rig.listener.connections.limits = replace(rig.listener.connections.limits, unread_s=0.1)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect(("127.0.0.1", rig.listener.port))
            body = chat()
            head = f"POST {CHAT} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await eventually(lambda: len(rig.listener.connections) == 1)
            await eventually(lambda: not len(rig.listener.connections), timeout_s=20.0)
        await eventually(lambda: rig.in_flight == 0)
