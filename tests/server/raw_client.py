"""A client that sends exactly the bytes a test tells it to, and reads responses off the wire."""

import asyncio
from typing import NamedTuple, Self


class RawResponse(NamedTuple):
    """One response as it came; `chunks` are the HTTP chunks of a chunked body."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes
    chunks: list[bytes]


class RawClient:
    """One connection to a server on loopback."""

    def __init__(self, port: int, *, limit: int = 65_536) -> None:
        self.port = port
        self.limit = limit
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self.port, limit=self.limit
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def post(self, path: str, body: bytes, *headers: str, version: str = "1.1") -> None:
        lines = [f"POST {path} HTTP/{version}", "Host: gateway", f"Content-Length: {len(body)}"]
        lines += headers or ["Content-Type: application/json"]
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def get(self, path: str, *headers: str, method: str = "GET") -> None:
        self.send("\r\n".join([f"{method} {path} HTTP/1.1", "Host: g", *headers, "", ""]).encode())

    async def head(self) -> tuple[int, str, dict[str, str]]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head[:-4].split("\r\n")
        assert line.startswith("HTTP/1.")
        _, status, reason = line.split(" ", 2)
        headers: dict[str, str] = {}
        for header in rest:
            name, value = header.split(":", 1)
            assert name.lower() not in headers, f"two headers {name}"
            headers[name.lower()] = value.strip()
        return int(status), reason, headers

    async def response(self, *, bodiless: bool = False) -> RawResponse:
        status, reason, headers = await self.head()
        chunks: list[bytes] = []
        if bodiless or status in (204, 304):
            body = b""
        elif "content-length" in headers:
            assert "transfer-encoding" not in headers
            body = await self.reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            while chunk := await self.chunk():
                chunks.append(chunk)
            body = b"".join(chunks)
        else:
            body = await self.reader.read()
        return RawResponse(status, reason, headers, body, chunks)

    async def chunk(self) -> bytes:
        """Read one chunk of a chunked body; empty at its end."""
        size = int(await self.reader.readline(), 16)
        data = await self.reader.readexactly(size)
        assert await self.reader.readexactly(2) == b"\r\n"
        return data

    async def at_end(self) -> bool:
        """Whether the server has closed the connection; waits until something happens."""
        return await self.reader.read(1) == b""
