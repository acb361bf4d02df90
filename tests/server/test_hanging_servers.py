"""A server that hangs: who is taken back from it, and when."""

import asyncio
from dataclasses import replace

import pytest

from gateway.runtime.clock import monotonic_clock
from gateway.scheduling.events import DispatchFailed, FailureKind
from gateway.scheduling.model import BackendId
from gateway.server.backend_client import BackendClient
from gateway.server.backend_connection import BackendFailure
from gateway.server.options import BackendConnectOptions, BackendEndpoint, BackendTimeouts
from tests.server.client_rig import client_of, one_exchange
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
)
from tests.server.test_backend_monitor import FAST, Engine, watching


async def stay_silent(peer: Peer) -> None:
    await peer.request()
    await peer.gone()


class Hanging(RawServer):
    """Begins the first answer, and says no more to anybody; `flows` goes on with the first."""

    def __init__(self, *, flows: bool = False) -> None:
        super().__init__(self._serve)
        self._flows = flows

    async def _serve(self, peer: Peer) -> None:
        first = self.connections == 1
        await peer.request()
        if first:
            await peer.send(STREAM_HEAD + chunked(event("hi")))
        while first and self._flows:
            await peer.send(chunked(event("on")))
            await asyncio.sleep(0.002)
        await peer.gone()


async def test_requests_are_taken_back_from_a_server_that_is_found_to_hang() -> None:
    async with (
        gateway(RawServer(stay_silent), serving(ok(b"{}"))) as rig,
        rig.client() as one,
        rig.client() as other,
    ):
        one.post(CHAT, chat())
        other.post(CHAT, chat())
        await eventually(lambda: rig.servers[0].open_peers)
        rig.clients[BackendId("s0")].give_up_unanswered()
        assert (await one.response()).status == 200
        assert (await other.response()).status == 200
        (failed,) = rig.events.of_type(DispatchFailed)
        assert failed.kind is FailureKind.UNRESPONSIVE


async def test_an_answer_that_has_begun_is_left_where_it_is() -> None:
    async with Hanging(flows=True) as server:
        client = client_of(server)
        exchange = asyncio.create_task(one_exchange(client))
        await eventually(lambda: server.connections)
        await asyncio.sleep(0.005)
        client.give_up_unanswered()
        await asyncio.sleep(0.005)
        assert not exchange.done()
        client.close()
        await asyncio.gather(exchange, return_exceptions=True)


@pytest.mark.parametrize(
    ("flows", "kinds"),
    [
        (False, {FailureKind.STALLED, FailureKind.UNRESPONSIVE}),
        (True, set()),
    ],
)
async def test_where_all_answers_stall_nobody_waits_longer_for_a_first_byte(
    flows: bool,  # noqa: FBT001 - a parameter of the test
    kinds: set[FailureKind],
) -> None:
    async with Hanging(flows=flows) as server:
        stall_s = 0.25 if flows else 0.03  # a busy machine lets nothing flow for a while
        client = client_of(server, stall_s=stall_s, first_byte_s=60.0, sweep_s=0.005)
        began = asyncio.create_task(one_exchange(client))
        await eventually(lambda: server.connections)
        waits = asyncio.create_task(one_exchange(client))
        done, _ = await asyncio.wait([began, waits], timeout=0.4 if flows else 0.5)
        assert {_kind_of(task) for task in done} == kinds
        client.close()
        await asyncio.gather(began, waits, return_exceptions=True)


def _kind_of(task: "asyncio.Task[object]") -> FailureKind:
    failure = task.exception()
    assert isinstance(failure, BackendFailure)
    return failure.kind


async def test_a_frozen_server_is_taken_out_and_its_requests_without_a_first_byte_move() -> None:
    engine = Engine()
    async with watching(engine, replace(FAST, timeout_s=0.02)) as watched:
        await eventually(lambda: watched.health)
        client = watched.backends.client(BackendId("s0"))
        engine.pages.update(dict.fromkeys(("/health", "/metrics", "/v1/models", "/v1/chat")))
        request = client.compose(b"POST", b"/v1/chat", b"host: h\r\n")
        exchange = asyncio.create_task(client.exchange(request, b"", _Ignored()))
        await eventually(lambda: watched.health[-1] == "BackendLeft")
        with pytest.raises(BackendFailure) as failure:
            await exchange
        assert failure.value.kind is FailureKind.UNRESPONSIVE


async def test_a_server_whose_answers_flow_is_not_taken_for_hanging() -> None:
    """As one that is starved of processor time, and answers polls late or never."""
    engine = Trickling()
    async with watching(engine, replace(FAST, timeout_s=0.01)) as watched:
        await eventually(lambda: watched.health)
        engine.pages.update(dict.fromkeys(("/health", "/metrics", "/v1/models")))
        client = watched.backends.client(BackendId("s0"))
        request = client.compose(b"POST", b"/v1/chat", b"host: h\r\n")
        exchange = asyncio.create_task(client.exchange(request, b"", _Ignored()))
        asked = len(engine.asked)
        await eventually(lambda: engine.asked[asked:].count("/health") >= 3)
        assert watched.health == ["BackendJoined"]
        engine.flows = False
        await eventually(lambda: watched.health[-1] == "BackendLeft")
        client.close()
        await asyncio.gather(exchange, return_exceptions=True)


async def test_a_server_that_answers_late_is_not_taken_for_hanging() -> None:
    """Later than one look may take, but sooner than all that take a server out."""
    engine = Late()
    options = replace(FAST, timeout_s=0.02, failures_to_leave=100, metrics_interval_s=60.0)
    async with watching(engine, options) as watched:
        await eventually(lambda: watched.health)
        engine.late_s = 0.05
        asked = len(engine.asked)
        await eventually(lambda: engine.asked[asked:].count("/health") >= 3)
        assert watched.health == ["BackendJoined"]


class Trickling(Engine):
    """Goes on with its answers, a piece at a time."""

    flows = True

    async def _serve(self, peer: Peer) -> None:
        if (await self._next(peer)) != "/v1/chat":
            return
        await peer.send(STREAM_HEAD)
        while self.flows:
            await peer.send(chunked(event("on")))
            await asyncio.sleep(0.002)
        await peer.gone()

    async def _next(self, peer: Peer) -> str:
        """Answer polls until something else is asked for, or nothing more."""
        while True:
            path = (await peer.request()).line.split(" ")[1]
            self.asked.append(path)
            if path == "/v1/chat":
                return path
            page = self.pages[path]
            if page is None:
                await peer.gone()
                return path
            await peer.send(page)


class Late(Engine):
    """Takes its time with /health."""

    late_s = 0.0

    async def _serve(self, peer: Peer) -> None:
        while True:
            path = (await peer.request()).line.split(" ")[1]
            if path == "/health":
                await asyncio.sleep(self.late_s)
            self.asked.append(path)
            page = self.pages[path]
            assert page is not None
            await peer.send(page)


async def test_no_server_is_blamed_for_a_gateway_that_was_held_up() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD + chunked(event("hi")))
        await go.wait()
        await peer.send(chunked(event("", "stop"), DONE) + LAST_CHUNK)

    async with RawServer(script) as server:
        clock = HeldUp()
        endpoint = BackendEndpoint.parse(server.url)
        timeouts = BackendTimeouts(
            stall_s=5.0, sweep_s=0.5
        )  # the answer has to come before the next pass
        options = BackendConnectOptions(endpoint=endpoint, timeouts=timeouts)
        client = BackendClient(options, clock=clock)
        exchange = asyncio.create_task(one_exchange(client))
        await eventually(lambda: client.heard_since(0.0))
        clock.lost_s += 60.0  # as if the process had been stopped
        swept = client._sweeper
        await eventually(lambda: client._sweeper is not swept)
        go.set()
        assert (await exchange).ended
        client.close()


async def test_a_server_that_stays_silent_after_that_is_blamed() -> None:
    async with Hanging() as server:
        clock = HeldUp()
        endpoint = BackendEndpoint.parse(server.url)
        timeouts = BackendTimeouts(stall_s=5.0, sweep_s=0.005)
        options = BackendConnectOptions(endpoint=endpoint, timeouts=timeouts)
        client = BackendClient(options, clock=clock)
        exchange = asyncio.create_task(one_exchange(client))
        await eventually(lambda: client.heard_since(0.0))
        clock.lost_s += 60.0
        with pytest.raises(BackendFailure) as failure:
            await exchange
        assert failure.value.kind is FailureKind.STALLED
        client.close()


class HeldUp:
    """A clock that jumps."""

    lost_s = 0.0

    def __call__(self) -> float:
        return monotonic_clock() + self.lost_s


async def test_a_server_that_says_it_is_unwell_keeps_what_it_has() -> None:
    engine = Engine()
    async with watching(engine, FAST) as watched:
        await eventually(lambda: watched.health)
        client = watched.backends.client(BackendId("s0"))
        engine.pages["/v1/chat"] = None
        engine.pages["/health"] = b"HTTP/1.1 503 Draining\r\ncontent-length: 0\r\n\r\n"
        request = client.compose(b"POST", b"/v1/chat", b"host: h\r\n")
        exchange = asyncio.create_task(client.exchange(request, b"", _Ignored()))
        await eventually(lambda: watched.health[-1] == "BackendLeft")
        await asyncio.sleep(0.005)
        assert not exchange.done()
        client.close()
        await asyncio.gather(exchange, return_exceptions=True)


class _Ignored:
    """A sink for an answer that does not come."""

    def head_received(self, head: object, flow: object) -> None:
        """Ignore it."""

    def body_received(self, data: bytes, *, last: bool) -> None:
        """Ignore it."""
