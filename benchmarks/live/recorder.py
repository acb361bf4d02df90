"""A TCP proxy in front of one model server that notes every exchange, as an impartial witness."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools
import orjson

_BACKLOG = 4_096


@dataclass(slots=True)
class Exchange:
    """One POST that reached a server.

    Attributes:
        model: the model name that the server was asked for.
        pieces: the response's body without transfer coding, as the server sent it.
        complete: whether the server finished its response.
    """

    request_id: str
    model: str
    pieces: list[bytes] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        """The response's body so far."""
        return b"".join(self.pieces)


class Recorder:
    """Listens on a port of its own and passes everything on to one server, both ways.

    Attributes:
        exchanges: by X-Request-Id, in order of arrival.
        awaited: by X-Request-Id, set when a request arrives.
        most_models: the most distinct models, those in `unbounded` apart, that were asked for at
            the same time.
    """

    def __init__(self, server_url: str, *, unbounded: frozenset[str] = frozenset()) -> None:
        """Witness the server at this URL."""
        address = urlsplit(server_url)
        assert address.hostname is not None
        assert address.port is not None
        self._host, self._port = address.hostname, address.port
        self._unbounded = unbounded
        self._listening: asyncio.Server | None = None
        self._open: Counter[str] = Counter()
        self._sides: set[_GatewaySide] = set()
        self.exchanges: dict[str, list[Exchange]] = {}
        self.awaited: dict[str, asyncio.Event] = {}
        self.most_models = 0

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._sides)

    async def start(self) -> str:
        """Listen on a free port; return the base URL."""
        self._listening = await asyncio.get_running_loop().create_server(
            lambda: _GatewaySide(self), "127.0.0.1", 0, backlog=_BACKLOG
        )
        return f"http://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._listening is not None:
            self._listening.close()
            for side in tuple(self._sides):
                side.drop()
            await self._listening.wait_closed()

    # Called by connections.

    async def connect(self, gateway_side: "_GatewaySide") -> None:
        """Open the connection to the server for one from the gateway."""
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: _ServerSide(gateway_side), self._host, self._port
            )
        except OSError:
            gateway_side.drop()

    def opened(self, side: "_GatewaySide") -> None:
        """Note a connection."""
        self._sides.add(side)

    def closed(self, side: "_GatewaySide") -> None:
        """Forget a connection."""
        self._sides.discard(side)

    def began(self, exchange: Exchange) -> None:
        """Note a request whose body has come."""
        self.exchanges.setdefault(exchange.request_id, []).append(exchange)
        if (awaited := self.awaited.get(exchange.request_id)) is not None:
            awaited.set()
        if exchange.model not in self._unbounded:
            self._open[exchange.model] += 1
            self.most_models = max(self.most_models, len(self._open))

    def ended(self, exchange: Exchange) -> None:
        """Note that a response is complete, or its connection gone."""
        if exchange.model in self._open:
            self._open[exchange.model] -= 1
            if not self._open[exchange.model]:
                del self._open[exchange.model]


class _GatewaySide(asyncio.Protocol):
    """The gateway's connection; holds what arrives until the server's is open.

    `on_` methods are httptools' callbacks for requests.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._requests = httptools.HttpRequestParser(self)
        self._responses = httptools.HttpResponseParser(_Responses(self))
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._early: list[bytes] = []
        self._connecting: asyncio.Task[None] | None = None
        self.exchange: Exchange | None = None
        self.to_gateway: asyncio.Transport | None = None
        self.to_server: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.to_gateway = cast("asyncio.Transport", transport)
        self._recorder.opened(self)
        self._connecting = asyncio.get_running_loop().create_task(self._recorder.connect(self))

    def data_received(self, data: bytes) -> None:
        self._requests.feed_data(data)
        if self.to_server is None:
            self._early.append(data)
        else:
            self.to_server.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a Protocol's
        self.to_gateway = None
        self.end_exchange()
        self._recorder.closed(self)
        if self.to_server is not None:
            self.to_server.abort()

    def server_connected(self, transport: asyncio.Transport) -> None:
        """Send on what has arrived; the gateway may have left already."""
        if self.to_gateway is None:
            transport.abort()
            return
        self.to_server = transport
        transport.writelines(self._early)
        self._early.clear()

    def server_sent(self, data: bytes) -> None:
        """Note bytes of the server and pass them on."""
        self._responses.feed_data(data)
        if self.to_gateway is not None:
            self.to_gateway.write(data)

    def drop(self) -> None:
        """Close without flushing."""
        if self.to_gateway is not None:
            self.to_gateway.abort()

    def end_exchange(self) -> None:
        """The response is complete, or no more of it will come."""
        if self.exchange is not None:
            self._recorder.ended(self.exchange)
            self.exchange = None

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._requests.get_method() == b"POST":
            self.exchange = Exchange(
                request_id=self._headers.get(b"x-request-id", b"").decode(),
                model=orjson.loads(b"".join(self._body))["model"],
            )
            self._recorder.began(self.exchange)
        self._headers.clear()
        self._body.clear()


class _Responses:
    """Callbacks of httptools for responses."""

    def __init__(self, side: _GatewaySide) -> None:
        self._side = side

    def on_body(self, body: bytes) -> None:
        if self._side.exchange is not None:
            self._side.exchange.pieces.append(body)

    def on_message_complete(self) -> None:
        if self._side.exchange is not None:
            self._side.exchange.complete = True
        self._side.end_exchange()


class _ServerSide(asyncio.Protocol):
    """The connection to the server."""

    def __init__(self, gateway_side: _GatewaySide) -> None:
        self._gateway_side = gateway_side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._gateway_side.server_connected(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self._gateway_side.server_sent(data)

    def connection_lost(self, exc: Exception | None) -> None:
        side = self._gateway_side
        side.to_server = None
        side.end_exchange()
        if side.to_gateway is not None:
            if exc is None:
                side.to_gateway.close()
            else:
                side.to_gateway.abort()
