import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from gateway.runtime.clock import monotonic_clock
from gateway.scheduling.decisions import RefusalReason
from gateway.server.admin import AdminPages
from gateway.server.admin_access import AdminAccess
from gateway.server.app import Gateway, ListenOptions
from gateway.server.backend_monitor import BackendMonitor
from tests.server.gateway_rig import CHAT, Rig, chat
from tests.server.raw_client import RawClient
from tests.server.raw_server import DONE, STREAM_HEAD, Peer, chunked, event, eventually, ok
from tests.server.test_backend_monitor import FAST, Engine


class Running:
    def __init__(self, rig: Rig, listen: tuple[ListenOptions, ListenOptions]) -> None:
        monitor = BackendMonitor(
            backends=rig.backends,
            deliver=rig.driver.deliver,
            clock=monotonic_clock,
            rng=Random(1),
            options=FAST,
        )
        self.gateway = Gateway(
            front_end=rig.front_end,
            admin=AdminAccess(
                AdminPages(pools=rig.pools, render_metrics=lambda: b"").handle, host="127.0.0.1"
            ),
            pools=rig.pools,
            background=[monitor],
            listen=listen,
        )
        self.rig = rig
        self.ports = (0, 0)
        self.stop = asyncio.Event()
        self.task: asyncio.Task[None]

    def started(self, clients: int, admins: int) -> None:
        self.ports = (clients, admins)

    def start(self, drain_s: float) -> None:
        run = self.gateway.run(stop=self.stop, drain_s=lambda: drain_s, started=self.started)
        self.task = asyncio.create_task(run)


@asynccontextmanager
async def running(engine: Engine, *, drain_s: float = 5.0) -> AsyncIterator[Running]:
    await engine.start()
    rig = Rig([engine])
    gateway = Running(rig, (ListenOptions(), ListenOptions()))
    gateway.start(drain_s)
    await eventually(lambda: rig.backends.any_usable)
    try:
        yield gateway
    finally:
        gateway.stop.set()
        await gateway.task
        await engine.stop()


class StreamingEngine(Engine):
    """Holds every chat stream after its first event until told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.pages[CHAT] = STREAM_HEAD + chunked(event("hi"))
        self._rest = chunked(event("", "stop"), DONE) + b"0\r\n\r\n"

    async def _serve(self, peer: Peer) -> None:
        while True:
            path = (await peer.request()).line.split(" ")[1]
            page = self.pages[path]
            assert page is not None
            await peer.send(page)
            if path == CHAT:
                await self.go.wait()
                await peer.send(self._rest)


async def test_both_listeners_serve_until_told_to_stop() -> None:
    async with running(Engine()) as gateway:
        for port, path in zip(gateway.ports, ("/ready", "/debug/state"), strict=True):
            async with RawClient(port) as client:
                client.get(path)
                assert (await client.response()).status == 200
    for port in gateway.ports:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_stopping_lets_streams_finish_within_the_grace() -> None:
    engine = StreamingEngine()
    async with running(engine) as gateway, RawClient(gateway.ports[0]) as client:
        client.post(CHAT, chat(stream=True))
        await client.head()
        assert await client.chunk() == event("hi")
        gateway.stop.set()
        await eventually(lambda: _refused(gateway.ports[0]))
        assert not gateway.task.done()
        engine.go.set()
        assert await client.chunk() == event("", "stop") + DONE
        assert await client.chunk() == b""
        await gateway.task


async def test_idle_connections_do_not_wait_for_the_streams_of_others() -> None:
    engine = StreamingEngine()
    async with (
        running(engine) as gateway,
        RawClient(gateway.ports[0]) as client,
        RawClient(gateway.ports[0]) as idle,
    ):
        idle.get("/health")
        await idle.response()
        client.post(CHAT, chat(stream=True))
        await client.head()
        gateway.stop.set()
        assert await idle.at_end()
        assert not gateway.task.done()
        engine.go.set()


async def test_a_body_that_is_on_its_way_when_stopping_is_still_read() -> None:
    engine = Engine()
    engine.pages[CHAT] = ok(b"{}")
    body = chat()
    async with running(engine) as gateway, RawClient(gateway.ports[0]) as client:
        client.send(b"POST %b HTTP/1.1\r\nHost: g\r\n" % CHAT.encode())
        client.send(b"Content-Length: %d\r\n\r\n%b" % (len(body), body[:5]))
        await eventually(lambda: gateway.rig.front_end.in_flight)
        gateway.stop.set()
        await eventually(lambda: _refused(gateway.ports[0]))
        client.send(body[5:])
        response = await client.response()
        assert response.status == 200
        assert response.headers["connection"] == "close"


async def test_a_body_that_outlasts_the_grace_is_answered_all_the_same() -> None:
    async with (
        running(Engine(), drain_s=0.01) as gateway,
        RawClient(gateway.ports[0]) as client,
    ):
        client.send(b"POST %b HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n\r\n{" % CHAT.encode())
        await eventually(lambda: gateway.rig.front_end.in_flight)
        gateway.stop.set()
        response = await client.response()
        assert response.status == 503
        assert response.headers["connection"] == "close"
        assert b"shutting down" in response.body
        await gateway.task
        assert gateway.rig.records.all[-1].reason is RefusalReason.DRAINING


async def test_a_request_that_was_on_its_way_over_a_kept_connection_is_served() -> None:
    engine = Engine()
    engine.pages[CHAT] = ok(b"{}")
    async with running(engine) as gateway, RawClient(gateway.ports[0]) as client:
        client.get("/health")
        await client.response()
        gateway.stop.set()
        await eventually(lambda: _refused(gateway.ports[0]))
        client.post(CHAT, chat())
        response = await client.response()
        assert response.status == 200
        assert response.headers["connection"] == "close"


async def test_a_head_of_which_a_part_has_come_is_waited_for_while_others_end() -> None:
    engine = StreamingEngine()
    async with (
        running(engine) as gateway,
        RawClient(gateway.ports[0]) as client,
        RawClient(gateway.ports[0]) as slow,
        RawClient(gateway.ports[0]) as idle,
    ):
        client.post(CHAT, chat(stream=True))
        slow.send(b"GET /health HTTP/1.1\r\n")
        await client.head()
        gateway.stop.set()
        assert await idle.at_end()
        slow.send(b"Host: g\r\n\r\n")
        assert (await slow.response()).status == 200
        engine.go.set()


async def test_connections_that_wait_in_the_backlog_are_taken_before_listening_ends() -> None:
    engine = Engine()
    engine.pages[CHAT] = ok(b"{}")
    async with running(engine) as gateway:
        waiting = socket.create_connection(("127.0.0.1", gateway.ports[0]))
        request = b"POST %b HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n%b"
        waiting.sendall(request % (CHAT.encode(), len(chat()), chat()))
        gateway.stop.set()  # without a turn of the loop since the connection was made
        await gateway.task
        waiting.settimeout(1.0)
        assert waiting.recv(100).startswith(b"HTTP/1.1 200 ")
        waiting.close()


async def test_streams_that_outlast_the_grace_end_with_an_error_event() -> None:
    engine = StreamingEngine()
    async with (
        running(engine, drain_s=0.01) as gateway,
        RawClient(gateway.ports[0]) as client,
    ):
        client.post(CHAT, chat(stream=True))
        await client.head()
        assert await client.chunk() == event("hi")
        gateway.stop.set()
        last = await client.chunk()
        assert b'{"error":' in last
        assert last.endswith(DONE)
        assert await client.chunk() == b""
        await gateway.task


async def test_requests_that_outlast_the_grace_unanswered_are_refused() -> None:
    engine = StreamingEngine()
    engine.pages[CHAT] = b""
    async with (
        running(engine, drain_s=0.01) as gateway,
        RawClient(gateway.ports[0]) as client,
    ):
        client.post(CHAT, chat())
        await eventually(lambda: gateway.rig.in_flight)
        gateway.stop.set()
        response = await client.response()
        assert response.status == 503
        assert b"shutting down" in response.body
        await gateway.task
        assert gateway.rig.records.all[-1].reason is RefusalReason.DRAINING


async def test_stopping_closes_idle_connections() -> None:
    async with running(Engine()) as gateway, RawClient(gateway.ports[0]) as client:
        client.get("/health")
        await client.response()
        gateway.stop.set()
        assert await client.at_end()


async def test_a_taken_port_is_an_os_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        options = ListenOptions(port=taken.getsockname()[1])
        engine = Engine()
        await engine.start()
        gateway = Running(Rig([engine]), (ListenOptions(), options))
        gateway.start(1.0)
        with pytest.raises(OSError, match="in use"):
            await gateway.task
        await engine.stop()


def _refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
