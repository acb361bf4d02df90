"""A TCP server that speaks exactly the bytes a test tells it to."""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, Self

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings" / "vllm-0.32"


class RawRequest(NamedTuple):
    """One request as it came."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)


class Peer:
    """One accepted connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> RawRequest:
        """Read one request; asyncio.IncompleteReadError when the other side has closed."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head[:-4].split("\r\n")
        headers = [(n, v.strip()) for n, v in (h.split(":", 1) for h in rest)]
        length = next((int(v) for n, v in headers if n.lower() == "content-length"), 0)
        return RawRequest(line, headers, await self.reader.readexactly(length))

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the other side has closed or reset the connection."""
        try:
            while await self.reader.read(65_536):
                pass
        except ConnectionError:
            pass


Script = Callable[[Peer], Awaitable[None]]


class RawServer:
    """Runs `script` for every connection, and closes the connection when the script returns."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections = 0
        self.requests: list[RawRequest] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open_peers(self) -> int:
        """Connections whose script still runs."""
        return len(self._tasks)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, port: int = 0, *, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self.script(Peer(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


def answering(server: RawServer, response: bytes) -> Script:
    """A script that answers every request on a kept-alive connection with the same bytes."""

    async def script(peer: Peer) -> None:
        while True:
            server.requests.append(await peer.request())
            await peer.send(response)

    return script


def ok(body: bytes, *extra: bytes) -> bytes:
    """A 200 response with a length."""
    lines = b"".join(line + b"\r\n" for line in extra)
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%b\r\n%b" % (len(body), lines, body)


def chunked(*chunks: bytes) -> bytes:
    """Body chunks as they go over the wire, without the last one."""
    return b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks)


def serving(response: bytes) -> RawServer:
    """A server that answers every request with the same bytes, connections kept alive."""
    server = RawServer(_silent)
    server.script = answering(server, response)
    return server


async def _silent(peer: Peer) -> None:
    await peer.gone()


def event(text: str, finish: str | None = None) -> bytes:
    """One event of a chat stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "model": "base", "choices": [choice]}
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


async def until_still(value: Callable[[], int], *, for_s: float) -> None:
    """Wait until `value()` has not changed for a while."""
    loop = asyncio.get_running_loop()
    seen, since = value(), loop.time()
    while loop.time() - since < for_s:
        await asyncio.sleep(0.001)
        if value() != seen:
            seen, since = value(), loop.time()


async def eventually(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Wait until `condition()` is true, looking every millisecond."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.001)
