"""What a client's connection does whatever its handler does."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.server.app import Listener, ListenOptions
from gateway.server.client_request import ClientRequest, RequestHandler
from tests.server.raw_client import RawClient
from tests.server.raw_server import eventually, until_still


@asynccontextmanager
async def serving(handler: RequestHandler, *, idle_s: float = 60.0) -> AsyncIterator[int]:
    listener = Listener(handler, ListenOptions(idle_s=idle_s))
    await listener.open()
    try:
        yield listener.port
    finally:
        await listener.close()


def write(request: ClientRequest, data: bytes) -> None:
    transport = request.connection.transport
    assert transport is not None
    transport.write(data)


async def test_requests_come_on_our_protocol_without_nagle() -> None:
    seen: list[int] = []

    async def handler(request: ClientRequest) -> bool:
        assert request.connection.transport is not None
        sock = request.connection.transport.get_extra_info("socket")
        seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        write(request, b"HTTP/1.1 204 No Content\r\n\r\n")
        return True

    async with serving(handler) as port, RawClient(port) as client:
        client.get("/")
        assert (await client.response()).status == 204
        assert seen == [1]


async def test_a_response_written_adds_no_byte_and_keeps_the_connection() -> None:
    async def handler(request: ClientRequest) -> bool:
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + request.path[1:].encode())
        return True

    async with serving(handler) as port, RawClient(port) as client:
        for path in "abc":
            client.get(f"/{path}")
            assert (await client.response()).body == path.encode()


async def test_a_response_written_without_keep_alive_closes_after_flushing() -> None:
    async def handler(request: ClientRequest) -> bool:
        write(request, b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 3_000_000)
        return False

    async with serving(handler) as port, RawClient(port) as client:
        client.get("/")
        assert len((await client.response()).body) == 3_000_000


async def test_an_exception_after_the_first_byte_adds_no_second_response(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(request: ClientRequest) -> bool:
        request.answered = True
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart")
        raise RuntimeError("a bug")

    async with serving(handler) as port, RawClient(port) as client:
        client.get("/")
        await client.head()
        with caplog.at_level(logging.CRITICAL):
            assert await client.reader.read() == b"part"


async def test_an_exception_before_the_first_byte_is_a_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(request: ClientRequest) -> bool:
        raise RuntimeError("a bug")

    async with serving(handler) as port, RawClient(port) as client:
        client.get("/")
        with caplog.at_level(logging.CRITICAL):
            assert (await client.response()).status == 500


async def test_a_client_that_leaves_cancels_the_handler_at_once() -> None:
    seen: list[str] = []

    async def handler(request: ClientRequest) -> bool:
        seen.append("started")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return False

    async with serving(handler) as port:
        async with RawClient(port) as client:
            client.get("/")
            await eventually(lambda: seen)
        await eventually(lambda: seen == ["started", "cancelled"])


class Feeder:
    last_data_at = 0.0

    def __init__(self) -> None:
        self.paused = False
        self.calls = 0

    def pause_reading(self) -> None:
        self.paused = True
        self.calls += 1

    def resume_reading(self) -> None:
        self.paused = False
        self.calls += 1

    def refuse(self, complaint: str) -> None:
        raise AssertionError(complaint)


async def test_a_client_that_does_not_read_pauses_the_feeder_until_it_does() -> None:
    feeder = Feeder()
    size = 20_000_000

    async def handler(request: ClientRequest) -> bool:
        request.connection.feed_from(feeder)
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        return True

    async with serving(handler) as port, RawClient(port) as client:
        client.get("/")
        await eventually(lambda: feeder.paused)
        assert len((await client.response()).body) == size
        await eventually(lambda: not feeder.paused)


async def test_no_request_is_handled_before_its_client_reads_the_last_answer() -> None:
    size, requests = 20_000_000, 3
    handled: list[ClientRequest] = []

    async def handler(request: ClientRequest) -> bool:
        handled.append(request)
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        return True

    async with serving(handler) as port, RawClient(port) as client:
        for _ in range(requests):
            client.get("/")
        for number in range(requests):
            await until_still(lambda: len(handled), for_s=0.01)
            assert len(handled) == number + 1
            assert len((await client.response()).body) == size


async def test_who_reads_nothing_for_the_idle_bound_gets_this_answer_and_no_other() -> None:
    size = 20_000_000
    handled: list[asyncio.Transport] = []

    async def handler(request: ClientRequest) -> bool:
        transport = request.connection.transport
        assert transport is not None
        handled.append(transport)
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        return True

    async with serving(handler, idle_s=0.02) as port, RawClient(port) as client:
        client.get("/")
        client.get("/")
        await eventually(lambda: handled and handled[0].is_closing())
        assert len((await client.response()).body) == size
        assert await client.at_end()
        assert len(handled) == 1


async def test_a_feeder_that_comes_while_the_client_does_not_read_is_paused_at_once() -> None:
    feeder = Feeder()
    size = 20_000_000
    seen: list[bool] = []

    async def handler(request: ClientRequest) -> bool:
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        await eventually(lambda: request.connection.writing_paused)
        request.connection.feed_from(feeder)
        seen.append(feeder.paused)
        request.connection.feed_from(None)
        return True

    async with serving(handler) as port, RawClient(port) as client:
        client.get("/")
        assert len((await client.response()).body) == size
        assert seen == [True]
        assert feeder.calls == 1


async def test_bodies_are_not_decompressed() -> None:
    async def handler(request: ClientRequest) -> bool:
        body = await request.body.more()
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        return True

    async with serving(handler) as port, RawClient(port) as client:
        client.post("/", b"not gzip", "Content-Encoding: gzip")
        assert (await client.response()).body == b"not gzip"


async def test_a_connection_without_a_request_is_closed_after_the_idle_bound() -> None:
    async def handler(request: ClientRequest) -> bool:
        raise AssertionError

    async with serving(handler, idle_s=0.01) as port, RawClient(port) as client:
        assert await client.at_end()
