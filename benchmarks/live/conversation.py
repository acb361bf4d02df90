"""A client that keeps the exact bytes it got, and may leave at any moment."""

import asyncio
import socket
from struct import pack
from typing import Self

import httptools
import orjson

CHAT = "/v1/chat/completions"
_READ_BYTES = 1 << 16


class Conversation:
    """One POST on a connection of its own; use it as a context, and read until the end.

    Attributes:
        status: 0 before the response's head has come.
        pieces: of the body so far, without transfer coding.
        complete: whether the response has ended in good order.
    """

    def __init__(self, port: int, request_id: str, body: dict[str, object]) -> None:
        """Ask the gateway on this port of the loopback address for a chat completion."""
        data = orjson.dumps(body)
        self._port = port
        self._request = (
            f"POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nX-Request-Id: {request_id}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        ).encode() + data
        self._body_bytes = len(data)
        self._rest = b""
        self._parser = httptools.HttpResponseParser(self)
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self.request_id = request_id
        self.status = 0
        self.pieces: list[bytes] = []
        self.complete = False

    @property
    def body(self) -> bytes:
        """The body so far."""
        return b"".join(self.pieces)

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(self._request)
        return self

    def hold_back(self, *, all_of_it: bool = False) -> None:
        """Let `__aenter__` send a half of the body only, or nothing of the request."""
        middle = 0 if all_of_it else len(self._request) - self._body_bytes // 2
        self._request, self._rest = self._request[:middle], self._request[middle:]

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def send_rest(self, after: asyncio.Event) -> None:
        """Send what `hold_back` has kept back, when it is time."""
        await after.wait()
        self._writer.write(self._rest)

    async def read(self) -> bool:
        """Take what comes next; False at the end of the response or of the connection."""
        if self.complete:
            return False
        data = await self._reader.read(_READ_BYTES)
        if data:
            self._parser.feed_data(data)
        return bool(data) and not self.complete

    async def read_all(self) -> Self:
        """Take everything."""
        while await self.read():
            pass
        return self

    def leave(self, *, rudely: bool) -> None:
        """Close the connection, or reset it, with the response still on its way."""
        if rudely:
            sock = self._writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
            self._writer.transport.abort()
        else:
            self._writer.close()

    # Callbacks of httptools.

    def on_headers_complete(self) -> None:
        """Note the status."""
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        """Note the orderly end."""
        self.complete = True


def question(model: str, text: str, *, max_tokens: int, stream: bool) -> dict[str, object]:
    """A chat request whose answer has exactly `max_tokens` tokens."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "stream": stream,
        "ignore_eos": True,
    }


async def ask(port: int, request_id: str, body: dict[str, object]) -> Conversation:
    """Ask and take the whole answer."""
    async with Conversation(port, request_id, body) as conversation:
        return await conversation.read_all()
