"""What a client's connection does whatever its handler does."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.server import client_connection
from gateway.server.app import Listener, ListenOptions
from gateway.server.client_connection import ClientConnection
from gateway.server.client_connections import ClientConnections
from gateway.server.client_request import BodyBroken, ClientRequest, RequestHandler
from gateway.server.options import ConnectionLimits
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


async def test_a_client_that_leaves_is_noticed_although_it_has_asked_for_more() -> None:
    seen: list[str] = []

    async def handler(request: ClientRequest) -> bool:
        seen.append(request.path)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return True

    async with serving(handler) as port:
        async with RawClient(port) as client:
            client.get("/one")
            client.get("/two")
            client.send(b"GET /thr")
            await eventually(lambda: seen)
        await eventually(lambda: seen == ["/one", "cancelled"])


async def test_a_client_that_leaves_at_once_has_its_request_heard_of() -> None:
    seen: list[str] = []

    async def handler(request: ClientRequest) -> bool:
        seen.append(request.path)
        await asyncio.Event().wait()
        return True

    connections = ClientConnections(ConnectionLimits())
    connection = ClientConnection(handler, connections)
    connection.connection_made(asyncio.Transport())
    connection.data_received(b"GET /gone HTTP/1.1\r\nHost: g\r\n\r\n")
    connection.connection_lost(None)
    await eventually(lambda: seen == ["/gone"] and connection.task is None)
    connections.close()


async def test_of_requests_behind_one_that_is_being_answered_only_a_few_are_read() -> None:
    go = asyncio.Event()
    handled = 0

    async def handler(request: ClientRequest) -> bool:
        nonlocal handled
        handled += 1
        await go.wait()
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        return True

    requests = 10_000
    async with serving(handler) as port, RawClient(port) as client:
        client.send(b"GET /%b HTTP/1.1\r\nHost: g\r\n\r\n" % (b"a" * 1_000) * requests)
        unsent = client.writer.transport.get_write_buffer_size
        await until_still(unsent, for_s=0.05)
        assert handled == 1
        assert unsent() > 0
        go.set()
        await client.reader.readexactly(38 * requests)
        assert handled == requests


async def test_what_is_no_request_is_answered_after_the_requests_before_it() -> None:
    async def handler(request: ClientRequest) -> bool:
        await asyncio.sleep(0)
        write(request, b"HTTP/1.1 204 No Content\r\n\r\n")
        return True

    async with serving(handler) as port, RawClient(port) as client:
        client.get("/")
        client.get("/")
        client.send(b"nonsense\r\n\r\n")
        assert [(await client.response()).status for _ in range(3)] == [204, 204, 400]
        assert await client.at_end()


async def test_a_client_that_is_still_sending_gets_its_answer_before_the_end() -> None:
    async def handler(request: ClientRequest) -> bool:
        write(request, b"HTTP/1.1 413 Too Large\r\ncontent-length: 1\r\n\r\nx")
        return False

    async with serving(handler) as port, RawClient(port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 9000000\r\n\r\n")
        client.send(b"x" * 1_000_000)
        assert (await client.response()).status == 413
        assert await client.at_end()
        client.send(b"x" * 1_000_000)
        await client.writer.drain()  # nothing of it is kept, and nobody is cut off in the middle


async def send_for_ever(client: RawClient) -> None:
    while True:
        client.send(b"x")
        await client.writer.drain()
        await asyncio.sleep(0.002)


@pytest.mark.interpreted
async def test_who_goes_on_sending_after_the_answer_is_cut_off_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_connection, "_LINGER_S", 0.01)

    async def handler(request: ClientRequest) -> bool:
        write(request, b"HTTP/1.1 408 Too Slow\r\ncontent-length: 0\r\n\r\n")
        return False

    async with serving(handler) as port, RawClient(port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 9000000\r\n\r\n")
        assert (await client.response()).status == 408
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionError):
                await send_for_ever(client)


async def test_a_body_that_breaks_its_framing_breaks_off_for_its_reader() -> None:
    async def handler(request: ClientRequest) -> bool:
        try:
            while not request.body.complete:
                await request.body.more()
        except BodyBroken:
            write(request, b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        return True

    async with serving(handler) as port, RawClient(port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        client.send(b"nonsense\r\n")
        assert (await client.response()).status == 400
        assert await client.at_end()


@pytest.mark.parametrize("size", [100_000, 3_000_000])
async def test_a_large_body_behind_a_request_that_is_being_answered_is_read_when_its_turn_comes(
    size: int,
) -> None:
    go = asyncio.Event()

    async def handler(request: ClientRequest) -> bool:
        await go.wait()
        received = 0
        while not request.body.complete:
            received += len(await request.body.more())
        received += len(request.body.take())
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n%07d" % received)
        return True

    async with serving(handler) as port, RawClient(port) as client:
        client.get("/")
        client.post("/", b"a" * size)
        client.get("/")
        await until_still(client.writer.transport.get_write_buffer_size, for_s=0.01)
        go.set()
        answers = [int((await client.response()).body) for _ in range(3)]
        assert answers == [0, size, 0]


async def test_an_answer_on_a_connection_that_ends_with_it_is_not_lost_by_bytes_behind_it() -> None:
    size = 3_000_000

    async def handler(request: ClientRequest) -> bool:
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        return False

    async with serving(handler) as port, RawClient(port) as client:
        client.get("/", "Connection: close")
        await client.head()
        client.send(b"\r\n")
        assert len(await client.reader.readexactly(size)) == size
        assert await client.at_end()


async def test_what_was_written_leaves_before_the_listener_is_closed() -> None:
    size = 9_000_000

    async def handler(request: ClientRequest) -> bool:
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        return True

    listener = Listener(handler, ListenOptions())
    await listener.open()
    async with RawClient(listener.port) as client:
        client.get("/")
        await client.head()
        closing = asyncio.create_task(listener.close())
        assert len(await client.reader.readexactly(size)) == size
        await closing
        assert len(listener.connections) == 0
