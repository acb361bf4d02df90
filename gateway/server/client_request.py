"""A client's request as its connection parsed it: the head, and the body as it comes in."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from gateway.server.backend_connection import ReadFlow

_MAX_UNREAD_BYTES: Final = 262_144
"""Of a body that nobody reads yet; one read of the transport brings as much."""


class BodyBroken(Exception):  # noqa: N818 (it is what the client did)
    """The rest of the body will not come: it is not framed as it says, or the client has left."""


class ClientSide(Protocol):
    """What a request asks of the connection that it came on.

    Attributes:
        transport: None once the connection is lost.
        remote: the client's address.
        writing_paused: the client has yet to read more than its buffer takes.
        task: in which a request is being handled.
    """

    transport: asyncio.Transport | None
    remote: str
    writing_paused: bool
    task: asyncio.Task[None] | None

    def feed_from(self, flow: ReadFlow | None) -> None:
        """Let this source be paused while the client does not read; None ends that."""
        ...

    def body_taken(self) -> None:
        """Read on, if reading was stopped because nobody took the body."""
        ...


class RequestBody:
    """The bytes of one body, in the order in which they came; one reader at most."""

    __slots__ = ("_broken", "_connection", "_pieces", "_size", "_waiter", "complete", "received")

    def __init__(self, connection: ClientSide) -> None:
        self._connection = connection
        self._pieces: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._broken = False
        self.complete = False
        """Whether all of it has come."""
        self.received = 0
        """Bytes that have come, taken or not."""

    @property
    def is_full(self) -> bool:
        """Whether so much waits for its reader that no more should be read."""
        return self._size > _MAX_UNREAD_BYTES

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._pieces.append(data)
        self._size += len(data)
        self.received += len(data)
        self._wake()

    def end(self) -> None:
        """Note that all of it has come."""
        self.complete = True
        self._wake()

    def break_off(self) -> None:
        """Note that the rest will not come."""
        self._broken = True
        self._wake()

    def take(self) -> bytes:
        """Return what has come and was not taken yet."""
        pieces, was_full = self._pieces, self.is_full
        self._pieces, self._size = [], 0
        if was_full:
            self._connection.body_taken()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def more(self) -> bytes:
        """Wait for bytes and return them; none only at the end.

        Raises:
            BodyBroken: the rest will not come.
        """
        while not self._pieces and not self.complete:
            if self._broken:
                raise BodyBroken
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.take()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class ClientRequest:
    """One request.

    Attributes:
        connection: that it came on.
        method: in upper case.
        target: as received: in origin form, in absolute form or `*`.
        headers: in the order in which they came, names in lower case.
        x_headers: those of them whose names begin with x-, as all do that speak to the gateway.
        http_11: whether the client speaks HTTP/1.1, and not an older version.
        keep_alive: whether the client lets the connection stay open.
        content_length: as announced; None where the body comes in chunks, or there is none.
        body: what has come of it.
        answered: whether bytes of a response have been written.
        request_id: under which the log knows it, once it has one.
    """

    __slots__ = (
        "answered",
        "body",
        "connection",
        "content_length",
        "headers",
        "http_11",
        "keep_alive",
        "method",
        "request_id",
        "target",
        "x_headers",
    )

    def __init__(
        self,
        connection: ClientSide,
        method: str,
        target: str,
        headers: list[tuple[bytes, bytes]],
        *,
        http_11: bool,
        keep_alive: bool,
    ) -> None:
        self.connection = connection
        self.method = method
        self.target = target
        self.headers = headers
        self.x_headers = [header for header in headers if header[0].startswith(b"x-")]
        self.http_11 = http_11
        self.keep_alive = keep_alive
        self.content_length: int | None = None
        self.body = RequestBody(connection)
        self.answered = False
        self.request_id: str | None = None

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def header(self, name: bytes) -> str | None:
        """Value of the first header of that name (in lower case); None if there is none."""
        for each, value in self.headers:
            if each == name:
                return value.decode("latin-1")
        return None


RequestHandler = Callable[[ClientRequest], Awaitable[bool]]
"""Answers a request; returns whether its connection may carry another one."""
