"""The connections of one listener: how many, from whom, and which keep us waiting for a head."""

import asyncio
from enum import StrEnum
from itertools import islice
from typing import Protocol

from gateway.server.options import ConnectionLimits

_SWEEPS_PER_TIMEOUT = 8
_MADE_ROOM_AT_ONCE = 64
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


class ClientConnection(Protocol):
    """What is asked of a connection."""

    @property
    def waits(self) -> bool:
        """Whether no request is being handled, or about to be."""
        ...

    @property
    def has_asked(self) -> bool:
        """Whether a request has come on it."""
        ...

    def cut(self, reason: CutReason) -> None:
        """Tell the client why, if that makes sense, and close."""
        ...


class ClientConnections:
    """Keeps to the limits. Where there is no place left, those that have waited longest for a
    request make room, first of all those that never sent one: an attacker who only holds
    connections open harms himself.
    """  # noqa: D205 - one sentence more

    def __init__(self, limits: ConnectionLimits) -> None:
        """Start without connections; `limits` may be replaced at any time."""
        self.limits = limits
        self.counts = dict.fromkeys(CutReason, 0)
        """How many connections were cut, by reason."""
        self._open: dict[ClientConnection, str] = {}
        self._by_address: dict[str, int] = {}
        self._heads: dict[ClientConnection, float] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: ClientConnection, address: str) -> CutReason | None:
        """Take a new connection; return why not, if not."""
        limits = self.limits
        from_there = self._by_address.get(address, 0)
        if limits.connections_per_client is not None and (
            from_there >= limits.connections_per_client
        ):
            return self._counted(CutReason.PER_CLIENT)
        if len(self._open) >= limits.connections and not self._make_room():
            return self._counted(CutReason.ALL_BUSY)
        self._open[connection] = address
        self._by_address[address] = from_there + 1
        return None

    def closed(self, connection: ClientConnection) -> None:
        """Forget a connection; one that was not admitted may be told of too."""
        address = self._open.pop(connection, None)
        self._heads.pop(connection, None)
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def head_begun(self, connection: ClientConnection) -> None:
        """Note that a part of a head has come; again and again is harmless."""
        if connection not in self._heads:
            loop = asyncio.get_running_loop()
            self._heads[connection] = loop.time()
            if self._sweeper is None:
                self._sweep_later(loop)

    def head_ended(self, connection: ClientConnection) -> None:
        """Note that the head is whole."""
        self._heads.pop(connection, None)

    def cut(self, connection: ClientConnection, reason: CutReason) -> None:
        """Close a connection and count it."""
        self._counted(reason)
        self.closed(connection)
        connection.cut(reason)

    def close(self) -> None:
        """Stop looking at the time."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _counted(self, reason: CutReason) -> CutReason:
        self.counts[reason] += 1
        return reason

    def _make_room(self) -> bool:
        for silent in (True, False):
            found = (
                each for each in self._open if each.waits and (not silent or not each.has_asked)
            )
            waiting = list(islice(found, _MADE_ROOM_AT_ONCE))
            if waiting:
                for connection in waiting:
                    self.cut(connection, CutReason.MADE_ROOM)
                return True
        return False

    def _sweep_later(self, loop: asyncio.AbstractEventLoop) -> None:
        after_s = self.limits.header_timeout_s / _SWEEPS_PER_TIMEOUT
        self._sweeper = loop.call_later(after_s, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer for all: heads are in the order in which they began."""
        self._sweeper = None
        latest = loop.time() - self.limits.header_timeout_s
        late = []
        for connection, begun_at in self._heads.items():
            if begun_at > latest:
                break
            late.append(connection)
        for connection in late:
            self.cut(connection, CutReason.HEADER_TOO_SLOW)
        if self._heads:
            self._sweep_later(loop)
