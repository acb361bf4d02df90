"""TLS towards servers, and towards clients. The certificate is the tests' own, for loopback."""

import asyncio
import ssl
from pathlib import Path

import pytest

from gateway.runtime.clock import monotonic_clock
from gateway.scheduling.events import FailureKind
from gateway.scheduling.model import BackendId
from gateway.server.app import Listener, ListenOptions
from gateway.server.backend_client import BackendClient
from gateway.server.backend_connection import BackendFailure
from gateway.server.options import BackendConnectOptions, BackendEndpoint
from tests.server.gateway_rig import CHAT, chat, gateway
from tests.server.raw_server import Peer, RawServer, ok, serving

FOLDER = Path(__file__).parent / "tls"
ANSWER = ok(b'{"answer":1}', b"content-type: application/json")


def server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(FOLDER / "certificate.pem", FOLDER / "key.pem")
    return context


def trusting_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=FOLDER / "certificate.pem")


async def client_of(server: RawServer, context: ssl.SSLContext) -> BackendClient:
    await server.start(tls=server_context())
    endpoint = BackendEndpoint.parse(f"https://127.0.0.1:{server.port}")
    return BackendClient(
        BackendConnectOptions(endpoint=endpoint, tls=context), clock=monotonic_clock
    )


async def test_a_server_is_spoken_to_over_tls_and_its_connection_kept() -> None:
    server = serving(ANSWER)
    client = await client_of(server, trusting_context())
    for _ in range(2):
        assert (await client.fetch("/health")).body == b'{"answer":1}'
    assert server.connections == 1
    client.close()
    await server.stop()


async def test_a_server_with_a_certificate_that_is_not_trusted_is_a_connect_failure() -> None:
    client = await client_of(server := serving(ANSWER), ssl.create_default_context())
    with pytest.raises(BackendFailure) as caught:
        await client.fetch("/health")
    assert caught.value.kind is FailureKind.CONNECT
    await server.stop()


async def test_cancelling_closes_a_tls_connection_at_once() -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.gone()
        gone.set()

    client = await client_of(server := RawServer(script), trusting_context())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.fetch("/health"), 0.05)
    await asyncio.wait_for(gone.wait(), 5)
    await server.stop()


async def test_clients_are_served_over_tls() -> None:
    async with gateway(serving(ANSWER)) as rig:
        listener = Listener(rig.front_end.handle, ListenOptions(tls=server_context()))
        await listener.open()
        status = await _ask_over_tls(listener.port)
        assert status == b"HTTP/1.1 200 OK\r\n"
        assert rig.clients[BackendId("s0")].open_connections == 1
        await listener.close()


async def _ask_over_tls(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting_context())
    body = chat()
    writer.write(b"POST %b HTTP/1.1\r\nHost: g\r\n" % CHAT.encode())
    writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    status = await reader.readline()
    writer.close()
    return status
