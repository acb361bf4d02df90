"""Takes connections over TLS: a handshake has its place among them before it is over.

asyncio's own server tells of a connection only after its handshake, so that clients that never end
theirs would be bounded by nothing but time.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Sequence

from gateway.server.client_connection import ClientConnection
from gateway.server.client_connections import ClientConnections, CutReason
from gateway.server.client_request import RequestHandler

_ACCEPTED_AT_ONCE = 256
_ANSWERED_AT_ONCE = 64
"""Of those that get no place: they are shaken hands with to be told why."""
_WITHOUT_FILES_S = 0.5
"""Until it is tried again to accept where the process has no file left."""


class Handshake:
    """Holds a place until its connection takes it over."""

    __slots__ = ("_shaking", "begun", "has_asked", "idle", "task")

    def __init__(self) -> None:
        """Nothing has come, and nothing is being handled."""
        self.idle = True
        self.has_asked = False
        self.task: asyncio.Task[None] | None = None
        self.begun = False
        """Whether its socket is the event loop's to close."""
        self._shaking: asyncio.Task[None] | None = None

    def goes_on_in(self, shaking: asyncio.Task[None] | None) -> None:
        """The task of it; None when that is over."""
        self._shaking = shaking

    def cut(self, reason: CutReason) -> None:  # noqa: ARG002 - there is no way to tell it yet
        """Give up."""
        self.close()

    def close(self) -> None:
        """Give up."""
        if self._shaking is not None:
            self._shaking.cancel()


class TlsListener:
    """Listening sockets whose connections begin with a handshake.

    Attributes:
        sockets: those that are listened on.
    """

    def __init__(
        self, handler: RequestHandler, connections: ClientConnections, context: ssl.SSLContext
    ) -> None:
        """Listen to nothing yet."""
        self.sockets: Sequence[socket.socket] = ()
        self._handler = handler
        self._connections = connections
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused: set[asyncio.Task[None]] = set()
        self._retries: set[asyncio.TimerHandle] = set()

    async def open(self, host: str, port: int, *, backlog: int) -> None:
        """Listen on every address of the host whose family the system knows.

        Raises:
            OSError: an address cannot be had, or all are of unknown families.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        sockets: list[socket.socket] = []
        unknown: OSError | None = None
        self.sockets = sockets
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                try:
                    sockets.append(_listening(family, address, backlog))
                except OSError as error:
                    if error.errno != errno.EAFNOSUPPORT:
                        raise
                    unknown = error
            if unknown is not None and not sockets:
                raise unknown
        except OSError:
            self.close()
            raise
        for each in sockets:
            loop.add_reader(each, self._accept, each)

    def close(self) -> None:
        """Take no more connections; handshakes that have a place go on."""
        loop = asyncio.get_running_loop()
        for each in self.sockets:
            loop.remove_reader(each)
            each.close()
        self.sockets = ()
        for retry in self._retries:
            retry.cancel()
        for task in self._refused:
            task.cancel()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # Of files or memory there is nothing left; what waits in the backlog can wait.
                self._pause(listening)
                return
            accepted.settimeout(0.0)
            self._take(accepted, str(address[0]))

    def _pause(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)

        def go_on() -> None:
            self._retries.discard(retry)
            loop.add_reader(listening, self._accept, listening)

        retry = loop.call_later(_WITHOUT_FILES_S, go_on)
        self._retries.add(retry)

    def _take(self, accepted: socket.socket, address: str) -> None:
        handshake = Handshake()
        refused = self._connections.admit(handshake, address)
        if refused is not None:
            if len(self._refused) >= _ANSWERED_AT_ONCE:
                accepted.close()
                return
            self._connections.counts[refused] -= 1  # it is counted when it is told so
        task = asyncio.get_running_loop().create_task(self._shake_hands(accepted, handshake))
        handshake.goes_on_in(task)
        tasks = self._tasks if refused is None else self._refused
        tasks.add(task)

        def over(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            handshake.goes_on_in(None)
            self._connections.closed(handshake)
            if not handshake.begun:  # it was cut in the turn that it came in
                accepted.close()

        task.add_done_callback(over)

    async def _shake_hands(self, accepted: socket.socket, handshake: Handshake) -> None:
        connections = self._connections
        handshake.begun = True
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: ClientConnection(self._handler, connections, handshake),
                accepted,
                ssl=self._context,
                # A handshake is to TLS what headers are to HTTP.
                ssl_handshake_timeout=connections.limits.header_timeout_s,
            )
        except OSError:
            connections.counts[CutReason.HANDSHAKE] += 1


def _listening(family: int, address: tuple[object, ...], backlog: int) -> socket.socket:
    made = socket.create_server(address, family=family, backlog=backlog)
    made.settimeout(0.0)
    return made
