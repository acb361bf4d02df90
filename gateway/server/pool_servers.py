"""Which servers a pool has at run time: what several sources say, carried out without a loss."""

import logging
import ssl
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from gateway.runtime.scheduler_driver import SchedulerDriver
from gateway.scheduling.model import BackendId
from gateway.server.backend_connector import BackendConnector
from gateway.server.backend_directory import BackendDirectory
from gateway.server.backend_monitor import BackendMonitor
from gateway.server.options import BackendEndpoint, BackendTimeouts

_LOG = logging.getLogger(__name__)

Declared = Mapping[str, bool]
"""Servers by URL, and whether each is to drain."""


class Wish(StrEnum):
    """What an operator wants of one server, whatever the sources say."""

    DRAIN = "drain"
    REMOVE = "remove"


class ServerState(StrEnum):
    """What a server of a pool is doing.

    `down` is not healthy (yet); `draining` takes nothing new but stays; `leaving` ends what it has
    and is then removed.
    """

    UP = "up"
    DOWN = "down"
    DRAINING = "draining"
    LEAVING = "leaving"


class ServerStatus(NamedTuple):
    """One server of a pool; `sources` are those that name it."""

    url: str
    state: ServerState
    healthy: bool
    in_flight: int
    sources: tuple[str, ...]
    wish: Wish | None


class PoolServers:
    """Adds, drains and removes the servers of one pool.

    Each source (the configuration, DNS, a file, Kubernetes, an administrator) declares its whole
    set again and again. A server is in the pool while any source names it, and drains while any of
    them says so. One that is named no longer gets nothing new, ends what it has, and is then
    removed; if it is named again before that, it stays.
    """

    def __init__(
        self,
        *,
        name: str,
        backends: BackendDirectory,
        monitor: BackendMonitor,
        driver: SchedulerDriver,
        connector: BackendConnector,
    ) -> None:
        """Start without servers; `name` is the pool's."""
        self.name = name
        self._backends = backends
        self._monitor = monitor
        self._driver = driver
        self._connector = connector
        self._declared: dict[str, Declared] = {}
        self._wishes: Mapping[str, Wish] = MappingProxyType({})
        self._states: dict[str, ServerState] = {}

    def declare(self, source: str, servers: Declared) -> None:
        """Take the servers that a source names now, in place of those it named before.

        Raises:
            ValueError: a URL that no client can be made for; nothing has changed.
        """
        for url in servers:
            BackendEndpoint.parse(url)
        self._declared[source] = dict(servers)
        self._reconcile()

    def withdraw(self, source: str) -> None:
        """Forget a source, and the servers that it alone names."""
        if self._declared.pop(source, None) is not None:
            self._reconcile()

    def override(self, wishes: Mapping[str, Wish]) -> None:
        """Take an operator's wishes, by URL, in place of the earlier ones."""
        if wishes != self._wishes:
            self._wishes = dict(wishes)
            self._reconcile()

    def reconfigure(self, timeouts: BackendTimeouts) -> None:
        """Change the bounds on attempts, also on those under way."""
        self._connector.timeouts = timeouts
        self._backends.set_timeouts(timeouts)

    def set_security(self, make_tls: Callable[[], ssl.SSLContext], authorization: str) -> None:
        """Speak to the servers otherwise, on connections opened from now on; see the connector."""
        self._connector.set_security(make_tls, authorization)
        for backend_id in self._backends:
            self._connector.reconnect(self._backends.client(backend_id))

    @property
    def wanted(self) -> list[str]:
        """URLs of all servers but those that leave."""
        return [url for url, state in self._states.items() if state is not ServerState.LEAVING]

    def statuses(self) -> list[ServerStatus]:
        """Every server, in order of joining."""
        return [self._status(url) for url in self._states]

    def counts(self) -> dict[ServerState, int]:
        """Servers by state, also states that none is in."""
        states = [status.state for status in self.statuses()]
        return {state: states.count(state) for state in ServerState}

    def _status(self, url: str) -> ServerStatus:
        backend_id = BackendId(url)
        healthy = self._monitor.is_healthy(backend_id)
        state = self._states[url]
        if state is ServerState.UP and not healthy:
            state = ServerState.DOWN
        return ServerStatus(
            url=url,
            state=state,
            healthy=healthy,
            in_flight=self._driver.streams.on(backend_id),
            sources=tuple(self._sources_of(url)),
            wish=self._wishes.get(url),
        )

    def _sources_of(self, url: str) -> list[str]:
        return [source for source, servers in self._declared.items() if url in servers]

    def _wanted(self) -> dict[str, bool]:
        """Servers that should be here, and whether each should drain."""
        wanted: dict[str, bool] = {}
        for servers in self._declared.values():
            for url, drains in servers.items():
                wanted[url] = drains or wanted.get(url, False)
        for url, wish in self._wishes.items():
            if wish is Wish.REMOVE:
                wanted.pop(url, None)
            elif url in wanted:
                wanted[url] = True
        return wanted

    def _reconcile(self) -> None:
        wanted = self._wanted()
        for url, drains in wanted.items():
            if url not in self._states:
                self._add(url, drains=drains)
            else:
                self._change(url, ServerState.DRAINING if drains else ServerState.UP)
        for url in [url for url in self._states if url not in wanted]:
            self._change(url, ServerState.LEAVING)

    def _add(self, url: str, *, drains: bool) -> None:
        backend_id = BackendId(url)
        self._backends.add(backend_id, self._connector.connect(url))
        self._monitor.add(backend_id, draining=drains)
        self._states[url] = ServerState.DRAINING if drains else ServerState.UP
        sources = ", ".join(self._sources_of(url))
        draining = ", draining" if drains else ""
        _LOG.info("server %s is added to pool %s by %s%s", url, self.name, sources, draining)

    def _change(self, url: str, state: ServerState) -> None:
        before = self._states[url]
        if state is before:
            return
        backend_id = BackendId(url)
        self._states[url] = state
        if state is ServerState.UP:
            _LOG.info("server %s of pool %s is wanted again", url, self.name)
            self._monitor.resume(backend_id)
            return
        in_flight = self._driver.streams.on(backend_id)
        what = "is leaving" if state is ServerState.LEAVING else "drains in"
        _LOG.info("server %s %s pool %s, in flight: %d", url, what, self.name, in_flight)
        if before is ServerState.UP:
            self._monitor.drain(backend_id)
        if state is ServerState.LEAVING:
            self._driver.streams.call_when_empty(backend_id, lambda: self._finish(url))

    def _finish(self, url: str) -> None:
        """Remove a server that is empty, unless it has been named again meanwhile."""
        backend_id = BackendId(url)
        if self._states.get(url) is ServerState.LEAVING and not self._driver.streams.on(backend_id):
            del self._states[url]
            self._monitor.remove(backend_id)
            self._backends.remove(backend_id)
            _LOG.info("server %s is removed from pool %s", url, self.name)
