"""If one of these fails after an update of aiohttp, read aiohttp_internals.py first."""

import asyncio
import inspect
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.server.aiohttp_internals import (
    ClientProtocol,
    LowLevelServer,
    SentResponse,
    client_protocol,
    mark_as_answered,
)
from tests.server.raw_client import RawClient
from tests.server.raw_server import eventually, until_still

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, *, idle_s: float = 60.0) -> AsyncIterator[int]:
    server = LowLevelServer(handler, idle_s=idle_s)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await server.shutdown(0.1)


def write(request: web.BaseRequest, data: bytes) -> None:
    transport = client_protocol(request).transport
    assert transport is not None
    transport.write(data)


def test_the_constructor_of_aiohttps_protocol_takes_what_we_pass() -> None:
    parameters = inspect.signature(RequestHandler.__init__).parameters
    assert {"manager", "loop", "keepalive_timeout", "access_log", "auto_decompress"} <= set(
        parameters
    )


def test_flow_control_methods_are_those_of_asyncio() -> None:
    for name in ("connection_made", "pause_writing", "resume_writing"):
        assert list(inspect.signature(getattr(RequestHandler, name)).parameters) == list(
            inspect.signature(getattr(asyncio.Protocol, name)).parameters
        )


async def test_requests_come_on_our_protocol_without_nagle() -> None:
    seen: list[int] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        protocol = client_protocol(request)
        assert type(protocol) is ClientProtocol
        assert protocol.transport is not None
        sock = protocol.transport.get_extra_info("socket")
        seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        write(request, b"HTTP/1.1 204 No Content\r\n\r\n")
        return SentResponse(client_protocol(request), keep_alive=True)

    async with serving(handler) as port, RawClient(port) as client:
        client.get("/")
        assert (await client.response()).status == 204
        assert seen == [1]


async def test_a_sent_response_adds_no_byte_and_keeps_the_connection() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + request.path[1:].encode())
        return SentResponse(client_protocol(request), keep_alive=True)

    async with serving(handler) as port, RawClient(port) as client:
        for path in "abc":
            client.get(f"/{path}")
            assert (await client.response()).body == path.encode()


async def test_a_sent_response_without_keep_alive_closes_after_flushing() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        write(request, b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 3_000_000)
        return SentResponse(client_protocol(request), keep_alive=False)

    async with serving(handler) as port, RawClient(port) as client:
        client.get("/")
        assert len((await client.response()).body) == 3_000_000


async def test_an_exception_after_the_first_byte_adds_no_second_response(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        mark_as_answered(request)
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
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        raise RuntimeError("a bug")

    async with serving(handler) as port, RawClient(port) as client:
        client.get("/")
        with caplog.at_level(logging.CRITICAL):
            assert (await client.response()).status == 500


async def test_a_client_that_leaves_cancels_the_handler_at_once() -> None:
    seen: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        seen.append("started")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return SentResponse(client_protocol(request), keep_alive=False)

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

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        client_protocol(request).feed_from(feeder)
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        return SentResponse(client_protocol(request), keep_alive=True)

    async with serving(handler) as port, RawClient(port) as client:
        client.get("/")
        await eventually(lambda: feeder.paused)
        assert len((await client.response()).body) == size
        await eventually(lambda: not feeder.paused)


async def test_no_request_is_handled_before_its_client_reads_the_last_answer() -> None:
    size, requests = 20_000_000, 3
    handled: list[web.BaseRequest] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        handled.append(request)
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        return SentResponse(client_protocol(request), keep_alive=True)

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

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        transport = client_protocol(request).transport
        assert transport is not None
        handled.append(transport)
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        return SentResponse(client_protocol(request), keep_alive=True)

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

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        await eventually(lambda: client_protocol(request).writing_paused)
        client_protocol(request).feed_from(feeder)
        seen.append(feeder.paused)
        client_protocol(request).feed_from(None)
        return SentResponse(client_protocol(request), keep_alive=True)

    async with serving(handler) as port, RawClient(port) as client:
        client.get("/")
        assert len((await client.response()).body) == size
        assert seen == [True]
        assert feeder.calls == 1


async def test_bodies_are_not_decompressed() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        return SentResponse(client_protocol(request), keep_alive=True)

    async with serving(handler) as port, RawClient(port) as client:
        client.post("/", b"not gzip", "Content-Encoding: gzip")
        assert (await client.response()).body == b"not gzip"


async def test_a_connection_without_a_request_is_closed_after_the_idle_bound() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        raise AssertionError

    async with serving(handler, idle_s=0.01) as port, RawClient(port) as client:
        assert await client.at_end()
