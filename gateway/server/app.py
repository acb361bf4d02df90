"""The gateway's HTTP side as a whole: two listeners, the monitors, an orderly end."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from gateway.scheduling.events import DrainStarted
from gateway.server.admin_access import AdminAccess
from gateway.server.client_connection import ClientConnection
from gateway.server.client_connections import ClientConnections
from gateway.server.client_request import RequestHandler
from gateway.server.front_end import FrontEnd
from gateway.server.options import ConnectionLimits
from gateway.server.routes import PoolDirectory
from gateway.server.tls_listener import TlsListener

_BACKLOG = 4_096
_TURNS_TO_ACCEPT = 2
"""Turns of the loop in which it takes the connections that wait in the backlog; closing resets
them."""
_TO_CANCEL_S = 1.0
_TO_FLUSH_S = 2.0
"""For what has been written to leave; the process ends after it."""
_LAST_CALL_S = 0.1
"""From the end of accepting to closing what is idle; answers meanwhile say `Connection: close`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenOptions:
    """Where one listener listens; port 0 takes a free one. `idle_s` as in FrontEndOptions."""

    host: str = "127.0.0.1"
    port: int = 0
    idle_s: float = 75.0
    tls: ssl.SSLContext | None = None
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)


class Listener:
    """One listening socket and the connections that came over it."""

    def __init__(self, handler: RequestHandler, options: ListenOptions) -> None:
        self._handler = handler
        self._options = options
        self.connections = ClientConnections(options.limits, idle_s=options.idle_s)
        self._listening: asyncio.Server | TlsListener | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._listening is not None
        port: int = self._listening.sockets[0].getsockname()[1]
        return port

    async def open(self) -> None:
        """Listen; OSError if the address cannot be had."""
        options = self._options
        if options.tls is not None:
            self._listening = TlsListener(self._handler, self.connections, options.tls)
            await self._listening.open(options.host, options.port, backlog=_BACKLOG)
            return
        self._listening = await asyncio.get_running_loop().create_server(
            lambda: ClientConnection(self._handler, self.connections),
            options.host,
            options.port,
            backlog=_BACKLOG,
        )

    def stop_accepting(self) -> None:
        """Take no more connections."""
        if self._listening is not None:
            self._listening.close()

    def close_idle(self) -> None:
        """Close the connections that wait for a request."""
        for connection in self.connections:
            if connection.idle:
                connection.close()

    async def close(self) -> None:
        """Close every connection; a request that is still being handled is cancelled."""
        self.stop_accepting()
        self.connections.close()
        tasks = [each.task for each in self.connections if each.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_TO_CANCEL_S)
        for connection in self.connections:
            connection.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_TO_FLUSH_S):
                await self.connections.none_open.wait()


class Background(Protocol):
    """What runs beside the requests: the monitors of servers, and the like."""

    async def run(self) -> None:
        """Run until cancelled."""
        ...


class Gateway:
    """Runs the HTTP side until it is told to stop."""

    def __init__(
        self,
        *,
        front_end: FrontEnd,
        admin: AdminAccess,
        pools: PoolDirectory,
        background: Sequence[Background],
        listen: tuple[ListenOptions, ListenOptions],
    ) -> None:
        """`listen` is for clients and for administrators, in this order."""
        self._front_end = front_end
        self._pools = pools
        self._background = tuple(background)
        self._clients = Listener(front_end.handle, listen[0])
        self._admins = Listener(admin.handle, listen[1])

    @property
    def connections(self) -> tuple[ClientConnections, ClientConnections]:
        """The connections of clients and of administrators."""
        return self._clients.connections, self._admins.connections

    async def run(
        self,
        *,
        stop: asyncio.Event,
        drain_s: Callable[[], float],
        started: Callable[[int, int], None],
    ) -> None:
        """Serve until `stop` is set, then finish what is in flight within `drain_s()`.

        Args:
            stop: set it to end.
            drain_s: asked at the end for the grace for requests in flight; streams still open
                then end with an error event.
            started: called with the ports of clients and administrators once both listen.

        Raises:
            OSError: an address cannot be listened on.
        """
        try:
            await self._clients.open()
            await self._admins.open()
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(each.run(), name=type(each).__name__)
                    for each in self._background
                ]
                started(self._clients.port, self._admins.port)
                await stop.wait()
                await self._drain(drain_s())
                for task in tasks:
                    task.cancel()
        finally:
            await self._clients.close()
            await self._admins.close()
            for pool in self._pools.pools:
                pool.backends.close()
                pool.driver.stop()

    async def _drain(self, drain_s: float) -> None:
        self._front_end.drain()
        for pool in self._pools.pools:
            pool.driver.deliver(DrainStarted())
        for _ in range(_TURNS_TO_ACCEPT):
            await asyncio.sleep(0)
        self._clients.stop_accepting()
        try:
            async with asyncio.timeout(drain_s):
                # Requests may be on their way over connections that are kept alive.
                await asyncio.sleep(_LAST_CALL_S)
                self._clients.close_idle()
                await self._front_end.idle.wait()
        except TimeoutError:
            self._front_end.cut()
            await self._front_end.idle.wait()
