"""A raw HTTP client for the simulator's tests: the bytes of answers, one connection each."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.simulator.http_server import SimulatedServer

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings" / "vllm-0.32"
POLL_S = 0.002


@dataclass(frozen=True)
class Answer:
    """A whole response: `chunks` are the chunks of its body, one if it was not chunked."""

    status: int
    headers: dict[str, str]
    chunks: list[bytes]

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def json(self) -> Any:  # noqa: ANN401 - any JSON
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """Data of each server-sent event; the end mark as text."""
        lines = self.body.decode().split("\n\n")
        assert lines.pop() == ""
        data = [line.removeprefix("data: ") for line in lines]
        return [d if d == "[DONE]" else json.loads(d) for d in data]


def parse_answer(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    headers = {}
    for field in fields:
        name, _, value = field.partition(": ")
        headers[name.lower()] = value
    chunks = [body]
    if headers.get("transfer-encoding") == "chunked":
        chunks = []
        while body:
            size, _, body = body.partition(b"\r\n")
            length = int(size, 16)
            if not length:
                break
            chunks.append(body[:length])
            assert body[length : length + 2] == b"\r\n"
            body = body[length + 2 :]
    return Answer(int(status.split()[1]), headers, chunks)


def recording(name: str) -> Answer:
    """A recorded answer of a real vLLM."""
    path = RECORDINGS / f"{name}.resp"
    return parse_answer((path if path.exists() else RECORDINGS / f"{name}.txt").read_bytes())


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """All bytes up to the end or the reset of a connection."""
    data = b""
    async with asyncio.timeout(5.0):
        while chunk := await reader.read(65536):
            data += chunk
    return data


@dataclass
class LiveServer:
    """A running simulated server and its base URL."""

    server: SimulatedServer
    url: str

    @asynccontextmanager
    async def connection(
        self, raw: bytes
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Send raw bytes; the connection is closed at the end."""
        address = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(raw)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def send(self, raw: bytes) -> Answer:
        """Send a raw request that asks to close the connection; return the answer."""
        async with asyncio.timeout(10.0), self.connection(raw) as (reader, _):
            return parse_answer(await reader.read())

    async def replay(self, name: str) -> Answer:
        """Send a recorded request."""
        return await self.send((RECORDINGS / f"{name}.req").read_bytes())

    async def get(self, path: str) -> Answer:
        return await self.send(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        )

    async def post(self, path: str, body: object = None, **headers: str) -> Answer:
        return await self.send(post_bytes(path, body, **headers))

    async def chat(self, **fields: object) -> Answer:
        return await self.post("/v1/chat/completions", chat_body(**fields))

    async def completion(self, **fields: object) -> Answer:
        return await self.post("/v1/completions", {"model": "base", "prompt": "Hi", **fields})

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds, at most ten seconds."""
        async with asyncio.timeout(10.0):
            while not condition():
                await asyncio.sleep(POLL_S)

    def in_engine(self) -> int:
        load = self.server.vllm.live.engine.load()
        return (load.running or 0) + (load.waiting or 0)


def chat_body(**fields: object) -> dict[str, object]:
    return {"model": "base", "messages": [{"role": "user", "content": "hello world"}], **fields}


def post_bytes(path: str, body: object = None, **headers: str) -> bytes:
    data = json.dumps(body if body is not None else {}).encode()
    fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def shape(value: object) -> object:
    """Keys in their order, and types of values: what a recording and an answer must share."""
    if isinstance(value, dict):
        return [(key, shape(item)) for key, item in value.items()]
    if isinstance(value, list):
        shapes = [shape(item) for item in value]
        return shapes[:1] if shapes and shapes == shapes[:1] * len(shapes) else shapes
    return type(value).__name__
