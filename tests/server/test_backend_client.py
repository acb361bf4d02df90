import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.runtime.clock import monotonic_clock
from gateway.scheduling.events import FailureKind
from gateway.server.backend_client import BackendClient
from gateway.server.backend_connection import BackendFailure, ReadFlow, ResponseHead
from gateway.server.options import BackendConnectOptions, BackendEndpoint, BackendTimeouts
from tests.server.raw_server import (
    LAST_CHUNK,
    STREAM_HEAD,
    Peer,
    RawServer,
    answering,
    chunked,
    eventually,
    ok,
)


class Recorder:
    """A sink that keeps what it got."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.flow: ReadFlow | None = None
        self.reads: list[bytes] = []
        self.ended = False

    @property
    def body(self) -> bytes:
        return b"".join(self.reads)

    def head_received(self, head: ResponseHead, flow: ReadFlow) -> None:
        self.head, self.flow = head, flow

    def body_received(self, data: bytes, *, last: bool) -> None:
        assert not self.ended
        self.reads.append(data)
        self.ended = last


def client_of(server: RawServer, **timeouts: float) -> BackendClient:
    return BackendClient(
        BackendConnectOptions(
            endpoint=BackendEndpoint.parse(server.url), timeouts=BackendTimeouts(**timeouts)
        ),
        clock=monotonic_clock,
    )


async def one_exchange(client: BackendClient) -> Recorder:
    sink = Recorder()
    headers = b"host: %b\r\ncontent-length: 2\r\n" % client.authority.encode()
    await client.exchange(client.compose(b"POST", b"/v1/x", headers, b"{}"), sink)
    return sink


@pytest.fixture
async def silent() -> AsyncIterator[RawServer]:
    """A server that takes requests and never answers."""

    async def script(peer: Peer) -> None:
        server.requests.append(await peer.request())
        await peer.gone()
        server.requests.clear()

    server = RawServer(script)
    async with server:
        yield server


async def test_a_request_reaches_the_server_as_composed() -> None:
    async with RawServer(lambda _: asyncio.sleep(0)) as server:
        server.script = answering(server, ok(b"hi"))
        sink = await one_exchange(client := client_of(server))
        assert server.requests[0].line == "POST /v1/x HTTP/1.1"
        assert server.requests[0].header("host") == f"127.0.0.1:{server.port}"
        assert server.requests[0].body == b"{}"
        assert sink.body == b"hi"
        client.close()


async def test_the_path_prefix_of_the_url_goes_before_every_path() -> None:
    async with RawServer(lambda _: asyncio.sleep(0)) as server:
        server.script = answering(server, ok(b""))
        endpoint = BackendEndpoint.parse(server.url + "/pool/a/")
        client = BackendClient(BackendConnectOptions(endpoint=endpoint), clock=monotonic_clock)
        await client.fetch("/health")
        assert server.requests[0].line == "GET /pool/a/health HTTP/1.1"
        client.close()


async def test_a_connection_is_kept_alive_for_the_next_request() -> None:
    async with RawServer(lambda _: asyncio.sleep(0)) as server:
        server.script = answering(server, ok(b"hi"))
        client = client_of(server)
        for _ in range(3):
            assert (await one_exchange(client)).body == b"hi"
        assert server.connections == 1
        client.close()


async def test_two_requests_at_a_time_use_two_connections() -> None:
    async with RawServer(lambda _: asyncio.sleep(0)) as server:
        server.script = answering(server, ok(b"hi"))
        client = client_of(server)
        await asyncio.gather(one_exchange(client), one_exchange(client))
        assert server.connections == 2
        client.close()


async def test_a_connection_that_the_server_wants_closed_is_not_reused() -> None:
    async with RawServer(lambda _: asyncio.sleep(0)) as server:
        server.script = answering(server, ok(b"hi", b"connection: close"))
        client = client_of(server)
        await one_exchange(client)
        await one_exchange(client)
        assert server.connections == 2
        assert client.open_connections == 0
        client.close()


async def test_a_kept_connection_older_than_the_bound_is_not_reused() -> None:
    now = [100.0]
    async with RawServer(lambda _: asyncio.sleep(0)) as server:
        server.script = answering(server, ok(b"hi"))
        client = BackendClient(
            BackendConnectOptions(endpoint=BackendEndpoint.parse(server.url)),
            clock=lambda: now[0],
        )
        await one_exchange(client)
        now[0] += 3.1
        await one_exchange(client)
        assert server.connections == 2
        client.close()


async def test_idle_connections_are_closed_by_the_sweep() -> None:
    async with RawServer(lambda _: asyncio.sleep(0)) as server:
        server.script = answering(server, ok(b"hi"))
        client = client_of(server, idle_s=0.005, sweep_s=0.002)
        await one_exchange(client)
        assert client.open_connections == 1
        await eventually(lambda: client.open_connections == 0)


async def test_a_reused_connection_that_fails_before_any_byte_is_retried_silently_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"hi"))
        if server.connections == 1:
            # Closes on seeing the second request, as a server does whose keep-alive ran out.
            await peer.request()
            return
        await peer.request()
        await peer.send(ok(b"again"))

    server = RawServer(script)
    async with server:
        client = client_of(server)
        await one_exchange(client)
        assert (await one_exchange(client)).body == b"hi"
        assert server.connections == 2
        client.close()


async def test_a_fresh_connection_that_fails_before_any_byte_is_not_retried() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()

    async with RawServer(script) as server:
        with pytest.raises(BackendFailure) as caught:
            await one_exchange(client_of(server))
        assert caught.value.kind is FailureKind.RESET
        assert server.connections == 1


async def test_a_refused_connection_is_a_connect_failure() -> None:
    async with RawServer(lambda _: asyncio.sleep(0)) as server:
        client = client_of(server)
    with pytest.raises(BackendFailure) as caught:
        await one_exchange(client)
    assert caught.value.kind is FailureKind.CONNECT


async def test_a_connection_that_does_not_open_in_time_is_a_connect_failure() -> None:
    # A listener whose queue of one is taken accepts nobody else.
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for taker in (first, second):
            taker.setblocking(False)  # noqa: FBT003
            taker.connect_ex(listener.getsockname())
        host, port = listener.getsockname()
        client = BackendClient(
            BackendConnectOptions(
                endpoint=BackendEndpoint(host, port, "a"), timeouts=BackendTimeouts(connect_s=0.05)
            ),
            clock=monotonic_clock,
        )
        with pytest.raises(BackendFailure) as caught:
            await one_exchange(client)
    assert caught.value.kind is FailureKind.CONNECT


async def test_a_server_that_does_not_answer_in_time_fails_with_timeout(silent: RawServer) -> None:
    client = client_of(silent, first_byte_s=0.01, sweep_s=0.002)
    with pytest.raises(BackendFailure) as caught:
        await one_exchange(client)
    assert caught.value.kind is FailureKind.TIMEOUT
    await eventually(lambda: not silent.requests)


async def test_a_server_that_falls_silent_in_mid_body_fails_as_stalled() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, chunked(b"one"))
        await peer.gone()

    async with RawServer(script) as server:
        with pytest.raises(BackendFailure) as caught:
            await one_exchange(client_of(server, stall_s=0.01, sweep_s=0.002))
    assert caught.value.kind is FailureKind.STALLED


async def test_cancelling_an_exchange_closes_the_connection_at_once(silent: RawServer) -> None:
    client = client_of(silent)
    task = asyncio.create_task(one_exchange(client))
    await eventually(lambda: silent.requests)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert client.open_connections == 0
    await eventually(lambda: not silent.requests)


async def test_everything_that_came_in_one_read_is_one_call_of_the_sink() -> None:
    async with RawServer(lambda _: asyncio.sleep(0)) as server:
        response = STREAM_HEAD + chunked(b"a", b"b", b"c") + LAST_CHUNK
        server.script = answering(server, response)
        sink = await one_exchange(client := client_of(server))
        assert sink.reads == [b"abc"]
        client.close()


@pytest.mark.parametrize("cut", range(1, 60))
async def test_a_response_cut_anywhere_arrives_whole(cut: int) -> None:
    response = b"HTTP/1.1 200 OK\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n"
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
        client = client_of(server, sweep_s=0.002)
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
        client = client_of(server, stall_s=0.01, sweep_s=0.002)
        sink = Recorder()
        task = asyncio.create_task(
            client.exchange(client.compose(b"GET", b"/", b""), sink), name="exchange"
        )
        await eventually(lambda: sink.flow is not None)
        assert sink.flow is not None
        sink.flow.pause_reading()
        sink.flow.pause_reading()
        held = -1
        while held != sent:
            held = sent
            await asyncio.sleep(0.005)
            await asyncio.sleep(0.005)
        received = len(sink.body)
        assert sent < 20_000_000
        for _ in range(10):
            await asyncio.sleep(0.003)
        assert len(sink.body) == received
        assert not task.done()
        sink.flow.resume_reading()
        await task
        assert len(sink.body) == 20_000_000
        client.close()


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


async def test_closing_the_client_fails_the_exchanges_that_are_on(silent: RawServer) -> None:
    client = client_of(silent)
    task = asyncio.create_task(one_exchange(client))
    await eventually(lambda: silent.requests)
    client.close()
    with pytest.raises(BackendFailure):
        await task


async def test_a_response_that_comes_before_the_request_was_taken_leaves_no_kept_connection() -> (
    None
):
    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(ok(b"too large"))
        server.requests.clear()
        await asyncio.Event().wait()

    server = RawServer(script)
    async with server:
        client = client_of(server)
        sink = Recorder()
        body = b"x" * 30_000_000
        head = b"content-length: %d\r\n" % len(body)
        await client.exchange(client.compose(b"POST", b"/", head, body), sink)
        assert sink.body == b"too large"
        assert client.open_connections == 0
