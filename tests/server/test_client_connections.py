"""Connections that send nothing, send slowly, or are too many."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.server.app import Listener, ListenOptions
from gateway.server.client_channel import ClientChannel
from gateway.server.client_connections import CutReason
from gateway.server.client_request import ClientRequest
from gateway.server.options import ConnectionLimits
from tests.server.raw_client import RawClient
from tests.server.raw_server import eventually

BEGUN = b"GET / HTTP/1.1\r\nHost: g\r\n"


class Served:
    """A listener whose requests to /wait are held until told to go on."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.go = asyncio.Event()
        self.listener = Listener(self._handle, ListenOptions(limits=limits))

    def client(self) -> RawClient:
        return RawClient(self.listener.port)

    @property
    def cut(self) -> dict[CutReason, int]:
        return {reason: n for reason, n in self.listener.connections.counts.items() if n}

    async def _handle(self, request: ClientRequest) -> bool:
        channel = ClientChannel(request)
        if request.path == "/wait":
            await self.go.wait()
        if request.path == "/large":
            await write_more_than_the_system_takes(channel)
        else:
            channel.send(200, b"", b"ok")
        return channel.end()


async def write_more_than_the_system_takes(channel: ClientChannel) -> None:
    transport = channel._connection.transport
    assert transport is not None
    channel.open(200, b"", length=None)
    while not transport.get_write_buffer_size():
        channel.write(b"x" * 20_000, last=False)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    channel.write(b"", last=True)


@asynccontextmanager
async def serving(**limits: object) -> AsyncIterator[Served]:
    served = Served(ConnectionLimits(**limits))  # type: ignore[arg-type] # named as in the limits
    await served.listener.open()
    try:
        yield served
    finally:
        served.go.set()
        await served.listener.close()


async def test_headers_that_do_not_end_in_time_are_answered_with_408_and_cut() -> None:
    async with serving(header_timeout_s=0.03) as served, served.client() as client:
        client.send(BEGUN)
        answer = await asyncio.wait_for(client.response(), 5)
        assert answer.status == 408
        assert b'"type":"header_too_slow"' in answer.body
        assert await client.at_end()
        assert served.cut == {CutReason.HEADER_TOO_SLOW: 1}
        assert len(served.listener.connections) == 0


async def test_dripping_bytes_do_not_put_the_time_off() -> None:
    async with serving(header_timeout_s=0.03) as served, served.client() as client:
        client.send(BEGUN)
        for _ in range(1_000):
            client.send(b"X-A: b\r\n")
            await asyncio.sleep(0.003)
            if served.cut:
                break
        assert served.cut == {CutReason.HEADER_TOO_SLOW: 1}


async def test_headers_in_pieces_that_end_in_time_are_answered() -> None:
    async with serving(header_timeout_s=60.0) as served, served.client() as client:
        for _ in range(2):
            for piece in (BEGUN, b"X-A: b\r\n", b"\r\n"):
                client.send(piece)
                await asyncio.sleep(0.002)
            assert (await client.response()).status == 200
        assert served.cut == {}
        assert not served.listener.connections.unfinished_heads


async def test_a_request_that_is_being_answered_has_no_headers_to_wait_for() -> None:
    async with serving(header_timeout_s=60.0) as served, served.client() as client:
        client.send(BEGUN)
        await eventually(lambda: served.listener.connections.unfinished_heads)
        client.send(b"\r\n")
        assert (await client.response()).status == 200
        client.get("/wait")
        await eventually(lambda: next(iter(served.listener.connections)).task is not None)
        client.get("/")
        await asyncio.sleep(0.002)
        assert not served.listener.connections.unfinished_heads
        served.go.set()
        assert (await client.response()).status == 200
        assert (await client.response()).status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 2_000 + b" HTTP/1.1\r\nHost: g\r\n\r\n",
        BEGUN + b"X-A: " + b"a" * 2_000 + b"\r\n\r\n",
        BEGUN + (b"X-A: " + b"b" * 100 + b"\r\n") * 20 + b"\r\n",
    ],
    ids=["first line", "one header", "headers together"],
)
@pytest.mark.parametrize("pieces", [1, 5])
async def test_headers_that_are_too_large_are_answered_with_431(head: bytes, pieces: int) -> None:
    async with serving(header_bytes=1_024, header_count=32) as served, served.client() as client:
        size = len(head) // pieces + 1
        for start in range(0, len(head), size):
            client.send(head[start : start + size])
            await asyncio.sleep(0.001)
        answer = await client.response()
        assert answer.status == 431
        assert b'"type":"header_too_large"' in answer.body
        assert served.cut == {CutReason.HEADER_TOO_LARGE: 1}


async def test_what_is_no_request_is_counted() -> None:
    async with serving() as served, served.client() as client:
        client.send(b"nonsense\r\n\r\n")
        assert (await client.response()).status == 400
        assert served.cut == {CutReason.MALFORMED: 1}


async def test_too_many_headers_are_answered_with_431() -> None:
    async with serving(header_count=32) as served, served.client() as client:
        client.send(BEGUN + b"X: b\r\n" * 40 + b"\r\n")
        assert (await client.response()).status == 431
        assert served.cut == {CutReason.HEADER_TOO_LARGE: 1}


async def test_a_head_whose_end_is_split_from_it_is_not_too_large() -> None:
    async with serving(header_bytes=1_024) as served, served.client() as client:
        head = BEGUN + b"Content-Length: 50000\r\nX-A: " + b"a" * 800 + b"\r\n\r"
        client.send(head)
        await eventually(lambda: served.listener.connections.unfinished_heads)
        client.send(b"\n" + b"a" * 50_000)
        assert (await client.response()).status == 200


async def test_a_body_behind_small_headers_may_be_larger_than_headers_may_be() -> None:
    async with serving(header_bytes=1_024) as served, served.client() as client:
        client.post("/", b"a" * 50_000)
        assert (await client.response()).status == 200


async def test_silent_connections_make_room_for_the_next_one() -> None:
    async with serving(connections=3) as served:
        silent = [served.client() for _ in range(3)]
        for each in silent:
            await each.__aenter__()
        await eventually(lambda: len(served.listener.connections) == 3)
        await asyncio.sleep(0.002)
        async with served.client() as client:
            client.get("/")
            assert (await client.response()).status == 200
        assert served.cut == {CutReason.MADE_ROOM: 3}
        for each in silent:
            await each.__aexit__()


async def test_connections_that_made_room_no_longer_count_for_their_address() -> None:
    async with serving(connections=4, connections_per_client=5) as served:
        silent = [served.client() for _ in range(5)]
        for each in silent:
            await each.__aenter__()
        await eventually(lambda: served.cut == {CutReason.MADE_ROOM: 4})
        await eventually(lambda: len(served.listener.connections) == 1)
        assert served.listener.connections._by_address == {"127.0.0.1": 1}
        for each in silent:
            await each.__aexit__()
        await eventually(lambda: len(served.listener.connections) == 0)
        assert served.listener.connections._by_address == {}


async def test_connections_that_never_asked_make_room_before_those_that_have() -> None:
    async with serving(connections=2) as served, served.client() as kept:
        kept.get("/")
        await kept.response()
        async with served.client():
            await eventually(lambda: len(served.listener.connections) == 2)
            await asyncio.sleep(0.002)
            async with served.client() as third:
                third.get("/")
                assert (await third.response()).status == 200
                kept.get("/")
                assert (await kept.response()).status == 200


async def test_connections_with_a_request_are_not_cut_and_the_next_one_gets_a_503() -> None:
    async with serving(connections=1) as served, served.client() as busy:
        busy.get("/wait")
        await eventually(lambda: next(iter(served.listener.connections)).task is not None)
        async with served.client() as refused:
            answer = await refused.response()
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
            assert await refused.at_end()
        assert served.cut == {CutReason.ALL_BUSY: 1}
        served.go.set()
        assert (await busy.response()).status == 200


async def test_one_address_may_have_so_many_connections() -> None:
    async with serving(connections_per_client=1) as served:
        async with served.client() as first:
            first.get("/")
            await first.response()
            async with served.client() as second:
                answer = await second.response()
                assert answer.status == 429
                assert b'"type":"connections_per_client"' in answer.body
        await eventually(lambda: len(served.listener.connections) == 0)
        assert served.listener.connections._by_address == {}
        async with served.client() as again:
            again.get("/")
            assert (await again.response()).status == 200


async def test_who_reads_nothing_makes_room_at_once() -> None:
    async with serving(connections=1) as served, served.client() as unread:
        unread.get("/large")
        await unread.head()
        await eventually(lambda: next(iter(served.listener.connections)).idle)
        async with served.client() as client:
            client.get("/")
            assert (await client.response()).status == 200
            assert len(served.listener.connections) == 1
        assert served.cut == {CutReason.MADE_ROOM: 1}


async def test_nonsense_after_a_part_of_a_head_ends_the_wait_for_it() -> None:
    async with serving(header_timeout_s=0.05) as served:
        async with served.client() as client, served.client() as slow:
            client.send(BEGUN)
            slow.send(BEGUN)
            await eventually(lambda: served.listener.connections.unfinished_heads == 2)
            client.send(b"\0\r\n")
            assert (await client.response()).status == 400
            assert served.listener.connections.unfinished_heads == 1
            assert (await slow.response()).status == 408
        assert served.cut == {CutReason.MALFORMED: 1, CutReason.HEADER_TOO_SLOW: 1}
