"""TLS handshakes take places among the connections, and end."""

import asyncio
import errno
import gc
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from gateway.server import tls_listener
from gateway.server.app import Listener, ListenOptions
from gateway.server.client_channel import ClientChannel
from gateway.server.client_connections import CutReason
from gateway.server.client_request import ClientRequest
from gateway.server.options import ConnectionLimits
from tests.server.raw_server import eventually
from tests.server.test_tls import server_context, trusting_context

QUESTION = b"GET / HTTP/1.1\r\nHost: g\r\n\r\n"


class Served:
    """A listener over TLS that answers 200, and its clients."""

    def __init__(self, limits: ConnectionLimits) -> None:
        options = ListenOptions(tls=server_context(), limits=limits)
        self.listener = Listener(self._answer, options)
        self.writers: list[asyncio.StreamWriter] = []

    @property
    def taken(self) -> int:
        return len(self.listener.connections)

    @property
    def counted(self) -> dict[CutReason, int]:
        return {reason: n for reason, n in self.listener.connections.counts.items() if n}

    async def silent(self) -> asyncio.StreamReader:
        """A client that connects and leaves it at that."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.port)
        self.writers.append(writer)
        return reader

    async def asked(self) -> tuple[asyncio.StreamReader, bytes]:
        """A client that was answered and stays, and the status line it got."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.listener.port, ssl=trusting_context()
        )
        self.writers.append(writer)
        writer.write(QUESTION)
        return reader, await asyncio.wait_for(reader.readline(), 5)

    async def _answer(self, request: ClientRequest) -> bool:
        channel = ClientChannel(request)
        channel.send(200, b"", b"ok")
        return channel.end()


@asynccontextmanager
async def serving(**limits: object) -> AsyncIterator[Served]:
    served = Served(ConnectionLimits(**limits))  # type: ignore[arg-type] # named as in the limits
    await served.listener.open()
    try:
        yield served
    finally:
        await served.listener.close()
        for writer in served.writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def ends(reader: asyncio.StreamReader) -> bool:
    with suppress(ConnectionResetError):
        return await asyncio.wait_for(reader.read(), 5) == b""
    return True


async def test_a_connection_has_the_place_of_its_handshake() -> None:
    async with serving(connections=1, connections_per_client=1) as served:
        _, status = await served.asked()
        assert status == b"HTTP/1.1 200 OK\r\n"
        assert served.taken == 1
        assert served.counted == {}


async def test_handshakes_under_way_make_room_for_those_that_come() -> None:
    async with serving(connections=2) as served:
        idlers = [await served.silent() for _ in range(2)]
        await eventually(lambda: served.taken == 2)
        _, status = await served.asked()
        assert status == b"HTTP/1.1 200 OK\r\n"
        assert all([await ends(each) for each in idlers])
        assert served.counted == {CutReason.MADE_ROOM: 2}
        assert served.taken == 1


async def test_handshakes_count_for_the_limit_of_a_client_which_is_told_so() -> None:
    async with serving(connections_per_client=1) as served:
        await served.silent()
        await eventually(lambda: served.taken == 1)
        _, status = await served.asked()
        assert status == b"HTTP/1.1 429 Too Many Requests\r\n"
        assert served.counted == {CutReason.PER_CLIENT: 1}


async def test_of_many_that_get_no_place_some_are_closed_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls_listener, "_ANSWERED_AT_ONCE", 2)
    async with serving(connections_per_client=1) as served:
        idlers = [await served.silent() for _ in range(5)]
        assert [await ends(each) for each in idlers[3:]] == [True, True]
        assert served.counted == {CutReason.PER_CLIENT: 2}
        assert not any(each.at_eof() for each in idlers[:3])


async def test_a_handshake_that_takes_too_long_is_ended() -> None:
    async with serving(header_timeout_s=0.02) as served:
        assert await ends(await served.silent())
        await eventually(lambda: not served.taken)
        assert served.counted == {CutReason.HANDSHAKE: 1}


async def test_what_is_no_handshake_is_closed_and_counted() -> None:
    async with serving() as served:
        reader = await served.silent()
        served.writers[0].write(QUESTION)
        with suppress(ConnectionResetError):
            assert b"200" not in await asyncio.wait_for(reader.read(), 5)
        await eventually(lambda: not served.taken)
        assert served.counted == {CutReason.HANDSHAKE: 1}


async def test_handshakes_that_are_cut_in_the_turn_they_came_in_are_closed() -> None:
    loop = asyncio.get_running_loop()
    async with serving(connections=2) as served:
        gc.disable()  # it closes sockets that were forgotten
        try:
            address = "127.0.0.1", served.listener.port
            clients = [socket.create_connection(address) for _ in range(6)]
            for each in clients:
                each.settimeout(0.0)
            for each in clients[:4]:
                assert await asyncio.wait_for(loop.sock_recv(each, 1), 5) == b""
        finally:
            gc.enable()
        assert served.counted == {CutReason.MADE_ROOM: 4}
        assert served.taken == 2
        for each in clients:
            each.close()


async def test_closing_ends_handshakes_with_and_without_a_place() -> None:
    async with serving(connections_per_client=1) as served:
        idlers = [await served.silent() for _ in range(2)]
        await eventually(lambda: served.taken == 1)
        await served.listener.close()
        assert all([await ends(each) for each in idlers])


async def test_no_more_connections_are_taken_while_those_that_are_there_go_on() -> None:
    async with serving() as served:
        port = served.listener.port
        reader, _ = await served.asked()
        served.listener.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        served.writers[0].write(QUESTION)
        await asyncio.wait_for(reader.readuntil(b"HTTP/1.1 200 OK\r\n"), 5)


async def test_without_files_connections_wait_in_the_backlog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls_listener, "_WITHOUT_FILES_S", 0.002)
    bounds = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with serving() as served:
        client = socket.create_connection(("127.0.0.1", served.listener.port))
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, bounds[1]))
        try:
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert served.taken == 0
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, bounds)
        await eventually(lambda: served.taken == 1)
        client.close()


async def test_an_address_that_is_taken_is_an_error() -> None:
    async with serving() as served:
        options = ListenOptions(tls=server_context(), port=served.listener.port)
        with pytest.raises(OSError, match="in use"):
            await Listener(served._answer, options).open()


def listener_without(monkeypatch: pytest.MonkeyPatch, *unknown: socket.AddressFamily) -> Listener:
    """A listener on every address, where the system does not know some families."""
    listening = tls_listener._listening

    def listen(
        family: socket.AddressFamily, address: tuple[object, ...], backlog: int
    ) -> socket.socket:
        if family in unknown:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return listening(family, address, backlog)

    monkeypatch.setattr(tls_listener, "_listening", listen)
    options = ListenOptions(host="", tls=server_context())
    return Listener(Served(ConnectionLimits())._answer, options)


async def test_addresses_of_families_that_the_system_does_not_know_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listener = listener_without(monkeypatch, socket.AF_INET6)
    await listener.open()
    assert listener.port
    await listener.close()


async def test_a_host_whose_addresses_are_all_left_out_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listener = listener_without(monkeypatch, socket.AF_INET6, socket.AF_INET)
    with pytest.raises(OSError, match="not supported"):
        await listener.open()
