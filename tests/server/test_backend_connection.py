import asyncio
import socket

import pytest

from gateway.scheduling.events import FailureKind
from gateway.server.backend_client import BackendClient
from gateway.server.backend_connection import BackendFailure
from gateway.server.options import BackendConnectOptions, BackendEndpoint
from tests.server.client_rig import Recorder, client_of, one_exchange
from tests.server.raw_server import (
    LAST_CHUNK,
    STREAM_HEAD,
    Peer,
    RawServer,
    answering,
    chunked,
    eventually,
    ok,
    until_still,
)


async def test_everything_that_came_in_one_read_is_one_call_of_the_sink() -> None:
    async with RawServer(lambda _: asyncio.sleep(0)) as server:
        response = STREAM_HEAD + chunked(b"a", b"b", b"c") + LAST_CHUNK
        server.script = answering(server, response)
        sink = await one_exchange(client := client_of(server))
        assert sink.reads == [b"abc"]
        client.close()


@pytest.mark.parametrize("cut", range(1, 60))
async def test_a_response_cut_anywhere_arrives_whole(cut: int) -> None:
    response = b"HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n"
    response += chunked(b"one", b"two") + LAST_CHUNK
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(response[:cut])
        await asyncio.sleep(0.001)
        await peer.send(response[cut:])
        seen.append(await peer.reader.read())

    async with RawServer(script) as server:
        sink = await one_exchange(client := client_of(server))
        assert sink.head is not None
        assert (sink.head.status, sink.head.reason) == (200, b"OK")
        assert (b"x", b"y") in sink.head.headers
        assert sink.body == b"onetwo"
        client.close()


async def test_informational_responses_are_skipped() -> None:
    async with RawServer(lambda _: asyncio.sleep(0)) as server:
        response = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + ok(b"hi")
        server.script = answering(server, b"HTTP/1.1 100 Continue\r\n\r\n" + response)
        sink = await one_exchange(client := client_of(server))
        assert sink.head is not None
        assert (sink.head.status, sink.head.reason) == (200, b"OK")
        assert sink.head.headers == [(b"content-length", b"2")]
        client.close()


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_a_status_without_body_ends_at_its_head(status: bytes) -> None:
    async with RawServer(lambda _: asyncio.sleep(0)) as server:
        server.script = answering(server, b"HTTP/1.1 %b\r\nx: y\r\n\r\n" % status)
        client = client_of(server)
        for _ in range(2):
            sink = await one_exchange(client)
            assert sink.ended
        assert server.connections == 1
        client.close()


async def test_a_body_without_framing_ends_with_the_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n", b"all ", b"of it")

    async with RawServer(script) as server:
        sink = await one_exchange(client_of(server))
        assert sink.body == b"all of it"
        assert sink.ended


async def test_a_body_shorter_than_its_length_is_a_reset() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort")

    async with RawServer(script) as server:
        with pytest.raises(BackendFailure) as caught:
            await one_exchange(client_of(server))
    assert caught.value.kind is FailureKind.RESET


async def test_bytes_beyond_the_length_reach_no_later_request() -> None:
    async with RawServer(lambda _: asyncio.sleep(0)) as server:
        server.script = answering(server, ok(b"hi") + ok(b"forged"))
        client = client_of(server)
        for _ in range(2):
            assert (await one_exchange(client)).body == b"hi"
        assert server.connections == 2
        client.close()


async def test_bytes_that_nobody_asked_for_close_the_kept_connection() -> None:
    unasked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"hi"))
        await unasked.wait()
        await peer.send(ok(b"forged"))
        await peer.gone()

    async with RawServer(script) as server:
        client = client_of(server, sweep_s=0.002, idle_s=60.0)
        await one_exchange(client)
        unasked.set()
        await eventually(lambda: client.open_connections == 0)


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000,
    ],
    ids=["not http", "upgrade", "bad chunk", "endless head"],
)
async def test_a_server_that_does_not_speak_http_is_a_protocol_failure(garbage: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(garbage)
        await peer.gone()

    async with RawServer(script) as server:
        with pytest.raises(BackendFailure) as caught:
            await one_exchange(client_of(server))
    assert caught.value.kind is FailureKind.PROTOCOL


async def test_trailers_are_dropped() -> None:
    async with RawServer(lambda _: asyncio.sleep(0)) as server:
        response = STREAM_HEAD + chunked(b"a") + b"0\r\nx-trailer: 1\r\n\r\n"
        server.script = answering(server, response)
        client = client_of(server)
        for _ in range(2):
            sink = await one_exchange(client)
            assert sink.head is not None
            assert len(sink.head.headers) == 2
        assert server.connections == 1
        client.close()


async def test_a_paused_response_holds_the_server_back_and_is_not_a_stall() -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        peer.writer.transport.set_write_buffer_limits(high=0)
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 20000000\r\n\r\n")
        while sent < 20_000_000:
            await peer.send(b"x" * 100_000)
            sent += 100_000

    async with RawServer(script) as server:
        client = client_of(server, stall_s=0.1, sweep_s=0.005)
        sink = Recorder()
        task = asyncio.create_task(
            client.exchange(client.compose(b"GET", b"/", b""), b"", sink), name="exchange"
        )
        await eventually(lambda: sink.flow is not None)
        assert sink.flow is not None
        sink.flow.pause_reading()
        sink.flow.pause_reading()
        await until_still(lambda: sent, for_s=0.2)
        assert sent < 20_000_000
        assert len(sink.body) < sent
        assert not task.done()
        sink.flow.resume_reading()
        await task
        assert len(sink.body) == 20_000_000
        client.close()


async def test_the_time_in_which_a_response_was_paused_is_no_silence_of_the_server() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        await peer.gone()

    async with RawServer(script) as server:
        now = [0.0]
        options = BackendConnectOptions(endpoint=BackendEndpoint.parse(server.url))
        client = BackendClient(options, clock=lambda: now[0])
        sink = Recorder()
        task = asyncio.create_task(client.exchange(client.compose(b"GET", b"/", b""), b"", sink))
        await eventually(lambda: sink.body)
        assert sink.flow is not None
        sink.flow.pause_reading()
        now[0] = 60.0
        sink.flow.resume_reading()
        assert sink.flow.last_data_at == 60.0
        client.close()
        with pytest.raises(BackendFailure):
            await task


async def test_nagle_is_off_towards_the_server() -> None:
    async with RawServer(lambda _: asyncio.sleep(0)) as server:
        server.script = answering(server, ok(b"hi"))
        client = client_of(server)
        await one_exchange(client)
        (connection, _), *_ = client._idle
        assert connection._transport is not None
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        client.close()
