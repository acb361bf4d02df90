import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest

from gateway.runtime.clock import monotonic_clock
from gateway.scheduling.events import FailureKind
from gateway.server.backend_client import BackendClient
from gateway.server.backend_connection import BackendFailure
from gateway.server.options import BackendConnectOptions, BackendEndpoint, BackendTimeouts
from tests.server.client_rig import Recorder, client_of, one_exchange
from tests.server.raw_server import (
    STREAM_HEAD,
    Peer,
    RawServer,
    answering,
    chunked,
    eventually,
    ok,
    serving,
)


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


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
async def test_a_name_that_no_resolver_takes_is_a_connect_failure(host: str) -> None:
    client = BackendClient(
        BackendConnectOptions(endpoint=BackendEndpoint(host, 80, host)), clock=monotonic_clock
    )
    with pytest.raises(BackendFailure) as caught:
        await one_exchange(client)
    assert caught.value.kind is FailureKind.CONNECT


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


async def test_a_connection_that_opened_while_the_loop_was_held_up_is_used() -> None:
    async with serving(ok(b"yes")) as server:
        client = client_of(server, connect_s=0.02)
        exchange = asyncio.create_task(one_exchange(client))
        await asyncio.sleep(0)
        time.sleep(0.05)  # noqa: ASYNC251 - as on a machine with other work
        assert (await exchange).body == b"yes"
        client.close()


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
        await client.exchange(client.compose(b"POST", b"/", head), body, sink)
        assert sink.body == b"too large"
        assert client.open_connections == 0
