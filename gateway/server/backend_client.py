"""Our own small HTTP client for one model server: kept-alive connections and one exchange each."""

import asyncio
from dataclasses import replace
from typing import Final, NamedTuple

from gateway.runtime.clock import Clock
from gateway.runtime.patient_timeout import PatientTimeout
from gateway.scheduling.events import FailureKind
from gateway.server.backend_connection import (
    BackendConnection,
    BackendFailure,
    ReaderGaveUp,
    ReadFlow,
    ResponseHead,
    ResponseSink,
)
from gateway.server.options import BackendConnectOptions, BackendEndpoint, BackendTimeouts

_MAX_PAGE_BYTES: Final = 16 << 20
"""Of a page that tells of a server."""


class FetchedResponse(NamedTuple):
    """A small response, whole."""

    status: int
    body: bytes


class BackendClient:
    """Connections to one server. Use it on one event loop only, and `close` it at the end.

    No connection is ever shared by two requests at a time, and none is half-closed (vLLM takes
    that for a disconnect). The number of connections is not bounded here: the scheduler bounds
    the requests.
    """

    def __init__(self, options: BackendConnectOptions, *, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        endpoint = options.endpoint
        self._target_prefix = endpoint.prefix.encode()
        self._idle: list[tuple[BackendConnection, float]] = []
        self._active: dict[BackendConnection, bool] = {}
        """Whether each carries an answer, and not just a page that tells of the server."""
        self._hangs = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweep_due_at = 0.0
        self._was_late = False

    @property
    def authority(self) -> str:
        """Value of the Host header for this server."""
        return self._options.endpoint.authority

    def set_timeouts(self, timeouts: BackendTimeouts) -> None:
        """Change the bounds, also on exchanges under way."""
        self._options = replace(self._options, timeouts=timeouts)

    @property
    def endpoint(self) -> BackendEndpoint:
        """Where the server listens."""
        return self._options.endpoint

    def reconfigure(self, options: BackendConnectOptions) -> None:
        """Go by these for the same endpoint; what is kept alive was opened by the old ones."""
        self._options = options
        self._close_idle()

    @property
    def open_connections(self) -> int:
        """Number of connections in use or kept alive."""
        return len(self._active) + len(self._idle)

    async def exchange(self, head: bytes, body: bytes, sink: ResponseSink) -> None:
        """Send a request and feed the response to `sink` until it ended.

        Args:
            head: see `compose`.
            body: as announced in the head.
            sink: takes the response.

        Cancelling it closes the connection at once.

        Raises:
            BackendFailure: no complete response. If it is raised before `sink.head_received`,
                nothing of the response was seen.
            ReaderGaveUp: the sink paused the response for longer than `slow_reader_s`.
        """
        kept = self._take_idle()
        if kept is not None and await self._run(kept, head, body, sink):
            return
        # A fresh connection: there was none to reuse, or the server had just closed it.
        await self._run(await self._connect(), head, body, sink)

    def compose(self, method: bytes, target: bytes, headers: bytes) -> bytes:
        """Put the head of a request together.

        Args:
            method: for instance b"POST".
            target: path and query as the client sent them.
            headers: complete lines, each ended by CRLF; Host among them, and Content-Length where
                a body follows.
        """
        return b"%b %b%b HTTP/1.1\r\n%b\r\n" % (method, self._target_prefix, target, headers)

    async def fetch(self, target: str, body: bytes = b"") -> FetchedResponse:
        """GET a small page, or POST some JSON for it; raises BackendFailure like `exchange`."""
        page = _Page(f"{target} is larger than {_MAX_PAGE_BYTES} bytes")
        headers = b"Host: %b\r\nAccept: */*\r\n" % self.authority.encode()
        if self._options.authorization:
            headers += b"Authorization: %b\r\n" % self._options.authorization.encode()
        if body:
            headers += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        method = b"POST" if body else b"GET"
        await self.exchange(self.compose(method, target.encode(), headers), body, page)
        return FetchedResponse(page.status, b"".join(page.pieces))

    def close(self) -> None:
        """Close every connection; exchanges that are on fail."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._close_idle()
        for connection in tuple(self._active):
            connection.fail(BackendFailure(FailureKind.RESET, "the gateway closed the connection"))

    def _close_idle(self) -> None:
        for connection, _ in self._idle:
            connection.abort()
        self._idle.clear()

    def heard_since(self, instant: float) -> bool:
        """Whether a byte of some response has come since then."""
        idle = [connection for connection, _ in self._idle]
        return any(c.answered and c.last_data_at >= instant for c in (*self._active, *idle))

    def give_up_unanswered(self) -> None:
        """Fail exchanges without a first byte: the server hangs, others may answer."""
        for connection in tuple(self._active):
            if not connection.answered:
                detail = "the server was found to hang"
                connection.fail(BackendFailure(FailureKind.UNRESPONSIVE, detail))

    def _take_idle(self) -> BackendConnection | None:
        oldest_usable_at = self._clock() - self._options.timeouts.idle_s
        while self._idle:
            connection, idle_since = self._idle.pop()
            if idle_since >= oldest_usable_at and connection.reusable:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> BackendConnection:
        options = self._options
        endpoint = options.endpoint
        try:
            async with PatientTimeout(options.timeouts.connect_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: BackendConnection(self._clock),
                    endpoint.host,
                    endpoint.port,
                    ssl=options.tls if endpoint.tls else None,
                )
        except TimeoutError as error:
            raise BackendFailure(FailureKind.CONNECT, "connecting took too long") from error
        except (OSError, ValueError) as error:  # ValueError: a name that no resolver takes
            raise BackendFailure(FailureKind.CONNECT, str(error)) from error
        return connection

    async def _run(
        self, connection: BackendConnection, head: bytes, body: bytes, sink: ResponseSink
    ) -> bool:
        is_answer = not isinstance(sink, _Page)
        self._active[connection] = is_answer
        self._ensure_sweeper()
        try:
            complete = await connection.begin(head, body, sink)
            if is_answer:
                self._hangs = False
            return complete
        finally:
            del self._active[connection]
            if connection.reusable:
                self._idle.append((connection, self._clock()))
            else:
                connection.abort()

    def _ensure_sweeper(self) -> None:
        if self._sweeper is None:
            sweep_s = self._options.timeouts.sweep_s
            self._sweep_due_at = self._clock() + sweep_s
            self._sweeper = asyncio.get_running_loop().call_later(sweep_s, self._sweep)

    def _sweep(self) -> None:
        """One pass over all connections instead of a timer for each response, let alone chunk."""
        self._sweeper = None
        now = self._clock()
        if not self._was_held_up(now):
            self._give_up_silent(now)
            idle_s = self._options.timeouts.idle_s
            for connection, idle_since in self._idle:
                if now - idle_since > idle_s:
                    connection.abort()
            self._idle = [kept for kept in self._idle if kept[0].reusable]
        if self._active or self._idle:
            self._ensure_sweeper()

    def _give_up_silent(self, now: float) -> None:
        """Fail exchanges that were silent for too long.

        Where answers stall and no other flows, the engine hangs: what waits for its first byte is
        then bound by the same time.
        """
        timeouts = self._options.timeouts
        self._hangs = self._hangs and not self._flows(now)
        for connection, is_answer in tuple(self._active.items()):
            silence_s = now - connection.last_data_at
            if connection.paused:
                if silence_s > timeouts.slow_reader_s:
                    connection.fail(ReaderGaveUp(f"nothing read for {silence_s:.1f} s"))
                continue
            if connection.answered:
                kind, bound_s = FailureKind.STALLED, timeouts.stall_s
            elif self._hangs:
                kind, bound_s = FailureKind.UNRESPONSIVE, timeouts.stall_s
            else:
                kind, bound_s = FailureKind.TIMEOUT, timeouts.first_byte_s
            if silence_s > bound_s:
                self._hangs |= is_answer and connection.answered and not self._flows(now)
                connection.fail(BackendFailure(kind, f"silent for {silence_s:.1f} s"))

    def _was_held_up(self, now: float) -> bool:
        """Whether this pass is far too late: what servers sent is then read before the next."""
        late = now - self._sweep_due_at > self._options.timeouts.sweep_s
        self._was_late = late and not self._was_late
        return self._was_late

    def _flows(self, now: float) -> bool:
        """Whether some answer has brought a byte within the time of a stall."""
        stall_s = self._options.timeouts.stall_s
        return any(
            is_answer and connection.answered and now - connection.last_data_at <= stall_s
            for connection, is_answer in self._active.items()
        )


class _Page:
    """Collects a small response; one that is not is refused with a complaint."""

    def __init__(self, complaint: str) -> None:
        self.status = 0
        self.pieces: list[bytes] = []
        self._complaint = complaint
        self._room = _MAX_PAGE_BYTES
        self._flow: ReadFlow | None = None

    def head_received(self, head: ResponseHead, flow: ReadFlow) -> None:
        self.status = head.status
        self._flow = flow

    def body_received(self, data: bytes, *, last: bool) -> None:  # noqa: ARG002 (ResponseSink)
        self._room -= len(data)
        if self._room >= 0:
            self.pieces.append(data)
        elif self._flow is not None:
            self._flow.refuse(self._complaint)
