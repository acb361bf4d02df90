"""Runs the sources of servers that the configuration names, and follows its changes."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import NamedTuple, Protocol, assert_never

from gateway.control.configuration import ConfigurationInForce
from gateway.discovery.file_source import FileSource
from gateway.discovery.kubernetes_source import KubernetesSource
from gateway.discovery.kubernetes_watch import Pace
from gateway.discovery.report import SourceReport
from gateway.runtime.clock import Clock
from gateway.server.pool_servers import Declared, PoolServers
from gateway.settings.discovery import DnsDiscovery, FileDiscovery, KubernetesDiscovery
from gateway.settings.problems import ConfigurationError
from gateway.settings.schema import Settings
from gateway.settings.service_changes import ServiceChange

_LOG = logging.getLogger(__name__)

OBJECTIVES = "InferenceObjectives"
"""The source of priorities that come from Kubernetes."""
_Wanted = DnsDiscovery | FileDiscovery | KubernetesDiscovery


class _Key(NamedTuple):
    pool: str
    source: str


class _Source(Protocol):
    async def run(self) -> None: ...


class _Running(NamedTuple):
    wanted: _Wanted
    report: SourceReport
    task: asyncio.Task[None]


class Discovery:
    """Has one source of each kind and pool at most; run it in a TaskGroup, `follow` is a part.

    When the settings of a source change, its servers stay until the new one has found its own.
    """

    def __init__(
        self,
        pools: Sequence[PoolServers],
        configuration: ConfigurationInForce,
        *,
        clock: Clock,
        rng: Random,
    ) -> None:
        self._pools = {servers.name: servers for servers in pools}
        self._configuration = configuration
        self._clock = clock
        self._rng = rng
        self._running: dict[_Key, _Running] = {}
        self._priorities: dict[str, Mapping[str, int]] = {}
        self._shared: dict[str, tuple[str, ...]] = {}
        self._group: asyncio.TaskGroup | None = None

    @property
    def reports(self) -> list[SourceReport]:
        """What each source of each pool has told."""
        return [running.report for running in self._running.values()]

    async def run(self) -> None:
        """Look for servers until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                self._start(self._configuration.settings)
                await asyncio.Event().wait()
            finally:
                self._group = None

    def follow(self, settings: Settings) -> Callable[[], None]:
        """Start, change and stop sources."""
        return partial(self._start, settings)

    def _start(self, settings: Settings) -> None:
        if self._group is None:
            return  # `run` starts them
        wanted = {
            _Key(pool.name, name): source
            for pool in settings.effective_pools()
            for name, source in pool.discovery
            if source is not None
        }
        for key in [key for key in self._running if key not in wanted]:
            self._running.pop(key).task.cancel()
            self._pools[key.pool].withdraw(key.source)
            self._priorities.pop(key.pool, None)
        for key, source in wanted.items():
            before = self._running.get(key)
            if before is not None and before.wanted == source:
                continue
            if before is not None:
                before.task.cancel()
            report = SourceReport(
                pool=key.pool,
                source=key.source,
                declare=partial(self._declare, key),
                clock=self._clock,
            )
            task = self._group.create_task(
                self._source(key, source, report).run(), name=f"{key.source} of {key.pool}"
            )
            self._running[key] = _Running(source, report, task)
        # Not now: the settings that name services and servers are not in force before the turn is
        # over.
        asyncio.get_running_loop().call_soon(self._prioritize)
        asyncio.get_running_loop().call_soon(self._warn_of_shared)

    def _source(self, key: _Key, wanted: _Wanted, report: SourceReport) -> _Source:
        match wanted:
            case DnsDiscovery():
                # dnspython takes 2 MB, and few pools need it.
                from gateway.discovery.dns_source import DnsSource  # noqa: PLC0415

                return DnsSource(wanted, report, rng=self._rng)
            case FileDiscovery():
                return FileSource(wanted, report)
            case KubernetesDiscovery():
                prioritize = partial(self._take_priorities, key.pool)
                pace = Pace(self._clock, self._rng)
                return KubernetesSource(wanted, report, prioritize=prioritize, pace=pace)
            case _:
                assert_never(wanted)

    def _declare(self, key: _Key, servers: Declared) -> None:
        self._pools[key.pool].declare(key.source, servers)
        self._warn_of_shared()

    def _warn_of_shared(self) -> None:
        """Tell the log of servers that are in several pools, which a file alone may not have.

        They are not refused: one that moves from pool to pool is in both for a moment.
        """
        pools: dict[str, tuple[str, ...]] = {}
        for name, servers in self._pools.items():
            for url in servers.wanted:
                pools[url] = (*pools.get(url, ()), name)
        shared = {url: names for url, names in pools.items() if len(names) > 1}
        for url, names in shared.items():
            if self._shared.get(url) != names:
                _LOG.warning(
                    "server %s is in pools %s: each reckons as if it had the server alone;"
                    " expected in one of them",
                    url,
                    ", ".join(names),
                )
        self._shared = shared

    def _take_priorities(self, pool: str, priorities: Mapping[str, int]) -> None:
        if self._priorities.get(pool) != priorities:
            self._priorities[pool] = dict(priorities)
            self._prioritize()

    def _prioritize(self) -> None:
        """Give services the priorities of the InferenceObjectives of their pool and name."""
        changes: dict[str, ServiceChange] = {}
        for pool in self._configuration.settings.effective_pools():
            priorities = self._priorities.get(pool.name, {})
            services = {service.name for service in pool.services}
            changes |= {n: {"priority": p} for n, p in priorities.items() if n in services}
            if others := ", ".join(sorted(priorities.keys() - services)):
                _LOG.warning(
                    "pool %s: InferenceObjectives without a service: %s", pool.name, others
                )
        try:
            self._configuration.change_services(OBJECTIVES, changes)
        except ConfigurationError as error:
            _LOG.error("%s are not followed:\n%s", OBJECTIVES, error)
