"""Makes and wires what each pool of the live gateway consists of."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import IO

from gateway.control.served_pools import ServedPool, declare_configured
from gateway.control.server_options import backend_timeouts, monitor_options, pool_options
from gateway.runtime.clock import monotonic_clock
from gateway.runtime.scheduler_driver import SchedulerDriver, SchedulerObserver
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.policy import SchedulingPolicy
from gateway.server.backend_connector import BackendConnector
from gateway.server.backend_directory import BackendDirectory
from gateway.server.backend_monitor import BackendMonitor
from gateway.server.pool_servers import PoolServers
from gateway.server.routes import ServingPool
from gateway.settings.policies import scheduling_policies
from gateway.settings.schema import PoolSettings, Settings
from gateway.settings.tls import server_side_context
from gateway.telemetry.health_log import log_health_change
from gateway.telemetry.journal import JournalWriter

_LOG = logging.getLogger("gateway")


def build_pools(settings: Settings, seed: int, files: ExitStack) -> list[ServedPool]:
    """Make every pool; journals are opened into `files`.

    Raises:
        OSError: a journal cannot be opened.
    """
    policies = scheduling_policies(settings)
    return [
        _pool(
            settings,
            pool,
            policies[pool.name],
            seed=seed + number,
            observers=_journals(settings, pool, policies[pool.name], seed + number, files),
        )
        for number, pool in enumerate(settings.effective_pools())
    ]


def _pool(
    settings: Settings,
    pool: PoolSettings,
    policy: SchedulingPolicy,
    *,
    seed: int,
    observers: Sequence[SchedulerObserver],
) -> ServedPool:
    options = pool_options(pool, requires_keys=settings.requires_keys)
    backends = BackendDirectory()
    driver = SchedulerDriver(
        scheduler=build_scheduler(policy, Random(seed)),
        clock=monotonic_clock,
        observers=observers,
        health_observers=(log_health_change,),
    )
    monitor = BackendMonitor(
        backends=backends,
        deliver=driver.deliver,
        clock=monotonic_clock,
        rng=Random(f"{seed} monitor {pool.name}"),
        options=monitor_options(settings),
    )
    servers = PoolServers(
        name=pool.name,
        backends=backends,
        monitor=monitor,
        driver=driver,
        connector=BackendConnector(
            timeouts=backend_timeouts(settings),
            clock=monotonic_clock,
            make_tls=partial(server_side_context, pool),
            authorization=options.forwarding.authorization,
        ),
    )
    declare_configured(servers, pool)
    serving = ServingPool(pool=policy.pool, driver=driver, backends=backends, options=options)
    return ServedPool(serving=serving, servers=servers, monitor=monitor, policy=policy)


def _journals(
    settings: Settings,
    pool: PoolSettings,
    policy: SchedulingPolicy,
    seed: int,
    files: ExitStack,
) -> tuple[SchedulerObserver, ...]:
    """The pool's journal; with several pools each has its own file, named after it."""
    path = settings.journal
    if path is None:
        return ()
    if len(settings.effective_pools()) > 1:
        path = path.with_name(f"{path.stem}-{pool.name}{path.suffix}")
    return (JournalWriter(_opened(path, files), policy=policy, seed=seed),)


def _opened(path: Path, files: ExitStack) -> IO[bytes]:
    journal = path.open("wb", buffering=1 << 16)
    files.callback(_close, journal)
    return journal


def _close(journal: IO[bytes]) -> None:
    try:
        journal.close()
    except OSError as error:
        _LOG.error("the end of the journal %s is lost: %s", journal.name, error)
