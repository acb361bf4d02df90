"""The one place where the live gateway's objects are made and wired; the only seed source."""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import secrets
import signal
import ssl
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from itertools import count
from pathlib import Path
from random import Random
from typing import IO

from prometheus_client import CollectorRegistry, generate_latest

from gateway.runtime.clock import monotonic_clock, wall_clock
from gateway.runtime.periodic import Periodic
from gateway.runtime.scheduler_driver import SchedulerDriver, SchedulerObserver
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.model import BackendId, ServiceName
from gateway.scheduling.policy import SchedulingPolicy
from gateway.scheduling.service_directory import DEFAULT_SERVICE
from gateway.server.admin import AdminPages
from gateway.server.app import Background, Gateway, ListenOptions
from gateway.server.backend_client import BackendClient
from gateway.server.backend_directory import BackendDirectory
from gateway.server.backend_monitor import BackendMonitor
from gateway.server.front_end import FrontEnd
from gateway.server.options import (
    BackendConnectOptions,
    BackendEndpoint,
    BackendTimeouts,
    FrontEndOptions,
    MonitorOptions,
    PoolOptions,
)
from gateway.server.proxy_handler import ProxyHandler, RequestObserver
from gateway.server.routes import PoolDirectory, ServingPool
from gateway.server.status_page.feed import StatusFeed
from gateway.server.status_page.pages import StatusPages
from gateway.server.status_page.sampler import StatusSampler
from gateway.settings.policies import forwarding_policy, scheduling_policies
from gateway.settings.rendering import effective_configuration
from gateway.settings.schema import PoolSettings, Settings
from gateway.telemetry.journal import JournalWriter
from gateway.telemetry.log_output import configure_logging
from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.recent_requests import RecentRequests
from gateway.telemetry.request_log import RequestLog
from gateway.telemetry.request_record import RequestRecord
from gateway.telemetry.scrape_collectors import LostLinesCollector, SchedulerCollector

_LOG = logging.getLogger("gateway")
_LOG_FLUSH_S = 1.0
_DESCRIPTORS_PER_STREAM = 2
_DESCRIPTORS_KEPT = 200
"""Descriptors that are not streams: listeners, polls of servers, files, the interpreter's."""


async def serve(settings: Settings, *, started: Callable[[int, int], None] | None = None) -> None:
    """Run the gateway until SIGTERM or SIGINT; a second signal ends it at once.

    Args:
        settings: the configuration.
        started: called with the ports of clients and administrators once both listen.

    Raises:
        OSError: an address or the journal cannot be opened.
    """
    configure_logging(level=settings.log_level, as_json=settings.log_format == "json")
    streams = _raise_descriptor_limit()
    stop = asyncio.Event()
    with ExitStack() as files:
        gateway = build_gateway(settings, files)
        _stop_on_signals(stop)
        _LOG.info("configuration in force:\n%s", effective_configuration(settings))

        def announce(client_port: int, admin_port: int) -> None:
            _LOG.info(
                "clients: http://%s:%d/v1  administration: http://%s:%d  (up to %d streams)",
                settings.host,
                client_port,
                settings.admin_host,
                admin_port,
                streams,
            )
            if started is not None:
                started(client_port, admin_port)

        # What exists now lives as long as the process: no collection needs to look at it again.
        gc.collect()
        gc.freeze()
        await gateway.run(stop=stop, drain_s=settings.drain_timeout, started=announce)


def build_gateway(settings: Settings, files: ExitStack) -> Gateway:
    """Make and wire everything; what must be closed at the end goes into `files`."""
    seed = secrets.randbits(32) if settings.seed is None else settings.seed
    registry = CollectorRegistry()
    policies = scheduling_policies(settings)
    effective = settings.effective_pools()
    pools = []
    monitors = []
    for number, pool in enumerate(effective):
        serving = _serving_pool(
            settings,
            pool,
            policies[pool.name],
            seed=seed + number,
            observers=_journals(settings, pool, policies[pool.name], seed + number, files),
        )
        pools.append(serving)
        monitors.append(
            BackendMonitor(
                backends=serving.backends,
                deliver=serving.driver.deliver,
                clock=monotonic_clock,
                rng=Random(f"{seed} monitor {pool.name}"),
                options=_monitor_options(settings),
            )
        )
    directory = PoolDirectory(pools)
    services = [service.name for pool in pools for service in pool.pool.services]
    metrics = RequestMetrics(services=[*services, DEFAULT_SERVICE])
    registry.register(metrics)
    registry.register(SchedulerCollector([pool.driver.snapshot for pool in pools]))
    recent = RecentRequests(wall_clock=wall_clock)
    sampler = StatusSampler(
        pools=directory,
        metrics=metrics,
        wall_clock=wall_clock,
        version=version("llm-instance-gateway"),
    )
    feed = StatusFeed(sampler=sampler, clock=monotonic_clock)
    observers: list[RequestObserver] = [metrics, recent]
    background: list[Background] = [*monitors, feed]
    if settings.request_log is not None:
        log = RequestLog(_request_log(settings.request_log, files), wall_clock=wall_clock)
        observers.append(log)
        background.append(Periodic(log.flush, interval_s=_LOG_FLUSH_S))
        registry.register(LostLinesCollector({"request_log": lambda: log.lost_lines}))
    front_end_options = _front_end_options(settings)
    proxy = ProxyHandler(
        pools=directory,
        options=front_end_options,
        clock=monotonic_clock,
        new_id=_id_source(),
        observer=_Observers(observers),
    )
    return Gateway(
        front_end=FrontEnd(proxy=proxy, pools=directory, options=front_end_options),
        admin=AdminPages(
            pools=directory,
            render_metrics=lambda: generate_latest(registry),
            status=StatusPages(pools=directory, sampler=sampler, feed=feed, recent=recent),
        ),
        pools=directory,
        background=background,
        listen=(
            ListenOptions(
                host=settings.host, port=settings.port, idle_s=settings.client_idle_timeout
            ),
            ListenOptions(host=settings.admin_host, port=settings.admin_port),
        ),
    )


def _serving_pool(
    settings: Settings,
    pool: PoolSettings,
    policy: SchedulingPolicy,
    *,
    seed: int,
    observers: Sequence[SchedulerObserver],
) -> ServingPool:
    timeouts = BackendTimeouts(
        connect_s=settings.connect_timeout,
        first_byte_s=settings.first_byte_timeout,
        stall_s=settings.stall_timeout,
        slow_reader_s=settings.slow_reader_timeout,
    )
    clients = {}
    for url in pool.servers:
        endpoint = BackendEndpoint.parse(url)
        options = BackendConnectOptions(
            endpoint=endpoint,
            timeouts=timeouts,
            tls=ssl.create_default_context() if endpoint.tls else None,
        )
        clients[BackendId(url)] = BackendClient(options, clock=monotonic_clock)
    return ServingPool(
        pool=policy.pool,
        driver=SchedulerDriver(
            scheduler=build_scheduler(policy, Random(seed)),
            clock=monotonic_clock,
            observers=observers,
        ),
        backends=BackendDirectory(clients),
        options=PoolOptions(
            forwarding=forwarding_policy(pool),
            servers_use_priority=pool.servers_use_priority,
            trusts_priority=pool.trust_client_priority,
            inject_usage=frozenset(
                ServiceName(service.name) for service in pool.services if service.inject_usage
            ),
        ),
    )


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
    return files.enter_context(path.open("wb", buffering=1 << 16))


def _front_end_options(settings: Settings) -> FrontEndOptions:
    return FrontEndOptions(
        max_body_bytes=settings.max_body_size,
        body_timeout_s=settings.body_timeout,
        idle_s=settings.client_idle_timeout,
        debug_headers=settings.debug_headers,
        cors_origins=frozenset(settings.cors_allow_origins),
    )


def _monitor_options(settings: Settings) -> MonitorOptions:
    return MonitorOptions(
        metrics_interval_s=settings.metrics_interval,
        health_interval_s=settings.health_interval,
        models_interval_s=settings.models_interval,
        timeout_s=settings.probe_timeout,
        failures_to_leave=settings.health_failures_to_leave,
    )


def _id_source() -> Callable[[], str]:
    """Ids that no other request of this process, and hardly one of another, has had."""
    prefix = secrets.token_hex(6)
    numbers = count(1)
    return lambda: f"{prefix}-{next(numbers):x}"


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            _LOG.warning("%s again: ending at once", number.name)
            os._exit(1)
        _LOG.info("%s: finishing what is in flight", number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)


def _raise_descriptor_limit() -> int:
    """Raise the soft limit on open files to the hard one; return how many streams that allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(0, soft - _DESCRIPTORS_KEPT) // _DESCRIPTORS_PER_STREAM


def _request_log(path: Path, files: ExitStack) -> IO[bytes]:
    """The file that lines are appended to; `-` is standard output."""
    if str(path) == "-":
        return sys.stdout.buffer
    return files.enter_context(path.open("ab"))


class _Observers:
    """Tells several observers of each finished request."""

    def __init__(self, observers: Sequence[RequestObserver]) -> None:
        self._observers = tuple(observers)

    def request_ended(self, record: RequestRecord) -> None:
        for observer in self._observers:
            observer.request_ended(record)
