"""The connections of one listener: how many, from whom, and which keep us waiting for a head."""

import asyncio
from collections.abc import Callable, Iterator
from enum import StrEnum
from itertools import chain, islice
from typing import Final, Protocol

from gateway.server.options import ConnectionLimits

_SWEEPS_PER_BOUND: Final = 8
_MADE_ROOM_AT_ONCE: Final = 64
"""Connections that are closed in one go, so that looking for them costs little for each."""


class CutReason(StrEnum):
    """Why a connection was closed, or not taken."""

    HEADER_TOO_SLOW = "header_too_slow"
    HEADER_TOO_LARGE = "header_too_large"
    MALFORMED = "malformed"
    """What came is no request, or can be read in two ways."""
    MADE_ROOM = "made_room"
    """It was waiting for a request when the last place was needed."""
    ALL_BUSY = "connections"
    """Every place was taken by a connection with a request."""
    PER_CLIENT = "connections_per_client"
    HANDSHAKE = "tls_handshake"
    """It failed, or took too long."""


class Connection(Protocol):
    """What is asked of a connection."""

    @property
    def idle(self) -> bool:
        """Whether nothing of a next request has come."""
        ...

    @property
    def has_asked(self) -> bool:
        """Whether a request has come on it."""
        ...

    @property
    def task(self) -> asyncio.Task[None] | None:
        """In which a request is being handled."""
        ...

    def cut(self, reason: CutReason) -> None:
        """Tell the client why, if that makes sense, and close."""
        ...

    def close(self) -> None:
        """Close without a word."""
        ...


class _Waits:
    """Connections in the order in which they began to wait, and one timer for all of them."""

    def __init__(
        self, too_late: Callable[[Connection], None], bound_s: Callable[[], float]
    ) -> None:
        self._too_late = too_late
        self._bound_s = bound_s
        self._since: dict[Connection, float] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._since)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._since)

    def begin(self, connection: Connection) -> None:
        """Wait for this one, too; one that waits already has no more time by it."""
        if connection not in self._since:
            loop = asyncio.get_running_loop()
            self._since[connection] = loop.time()
            if self._sweeper is None:
                self._sweep_later(loop)

    def end(self, connection: Connection) -> None:
        """Wait for this one no longer."""
        self._since.pop(connection, None)

    def stop(self) -> None:
        """Stop looking at the time."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _sweep_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweeper = loop.call_later(self._bound_s() / _SWEEPS_PER_BOUND, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweeper = None
        latest = loop.time() - self._bound_s()
        late = []
        for connection, since in self._since.items():
            if since > latest:
                break
            late.append(connection)
        for connection in late:
            self._too_late(connection)
        if self._since:
            self._sweep_later(loop)


class ClientConnections:
    """Keeps to the limits. Where there is no place left, those that have waited longest for a
    request make room, first of all those that never sent one: an attacker who only holds
    connections open harms himself.
    """  # noqa: D205 - one sentence more

    def __init__(self, limits: ConnectionLimits, *, idle_s: float = 75.0) -> None:
        """Start without connections; `limits` and `idle_s` may be replaced at any time.

        `idle_s` bounds the wait for a request, the first one too.
        """
        self.limits = limits
        self.idle_s = idle_s
        self.counts = dict.fromkeys(CutReason, 0)
        """How many connections were cut, by reason."""
        self.none_open = asyncio.Event()
        self.none_open.set()
        self._open: dict[Connection, str] = {}
        self._by_address: dict[str, int] = {}
        self._heads = _Waits(self._head_too_slow, lambda: self.limits.header_timeout_s)
        self._idle = _Waits(_close, lambda: self.idle_s)

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._open))

    @property
    def unfinished_heads(self) -> int:
        """Connections that have sent a part of a head."""
        return len(self._heads)

    def admit(self, connection: Connection, address: str) -> CutReason | None:
        """Take a new connection; return why not, if not."""
        limits = self.limits
        by_address = self._by_address
        if limits.connections_per_client is not None and (
            by_address.get(address, 0) >= limits.connections_per_client
        ):
            return self._counted(CutReason.PER_CLIENT)
        if len(self._open) >= limits.connections and not self._make_room():
            return self._counted(CutReason.ALL_BUSY)
        self._open[connection] = address
        self.none_open.clear()
        # Those that made room may have been of this address.
        by_address[address] = by_address.get(address, 0) + 1
        self._idle.begin(connection)
        return None

    def closed(self, connection: Connection) -> None:
        """Forget a connection; one that was not admitted may be told of too."""
        address = self._open.pop(connection, None)
        self._heads.end(connection)
        self._idle.end(connection)
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
        if not self._open:
            self.none_open.set()

    def head_begun(self, connection: Connection) -> None:
        """Note that a part of a head has come; again and again is harmless."""
        self._idle.end(connection)
        self._heads.begin(connection)

    def asked(self, connection: Connection) -> None:
        """Note that a whole head has come."""
        self._idle.end(connection)
        self._heads.end(connection)

    def idle(self, connection: Connection) -> None:
        """Note that a connection waits for its next request."""
        self._idle.begin(connection)

    def cut(self, connection: Connection, reason: CutReason) -> None:
        """Close a connection and count it."""
        self._counted(reason)
        self.closed(connection)
        connection.cut(reason)

    def close(self) -> None:
        """Stop looking at the time."""
        self._heads.stop()
        self._idle.stop()

    def _head_too_slow(self, connection: Connection) -> None:
        self.cut(connection, CutReason.HEADER_TOO_SLOW)

    def _counted(self, reason: CutReason) -> CutReason:
        self.counts[reason] += 1
        return reason

    def _make_room(self) -> bool:
        for silent in (True, False):
            # Both together are those that wait: where all are busy, this costs nothing.
            found = (
                each for each in chain(self._idle, self._heads) if not (silent and each.has_asked)
            )
            waiting = list(islice(found, _MADE_ROOM_AT_ONCE))
            if waiting:
                for connection in waiting:
                    self.cut(connection, CutReason.MADE_ROOM)
                return True
        return False


def _close(connection: Connection) -> None:
    connection.close()
