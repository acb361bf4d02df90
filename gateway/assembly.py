"""The one place where the live gateway's objects are made and wired; the only seed source."""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import secrets
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path
from random import Random
from typing import IO, TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest

from gateway.control.access import AccessRules, ServingCertificate
from gateway.control.admin_api import AdminApi
from gateway.control.configuration import ConfigurationInForce
from gateway.control.discovery import Discovery
from gateway.control.operator_changes import OperatorChanges
from gateway.control.reload import Reloader
from gateway.control.served_pools import ServedPool, ServedPools
from gateway.control.server_options import connection_limits, front_end_options
from gateway.pool_assembly import build_pools
from gateway.runtime.clock import monotonic_clock, wall_clock
from gateway.runtime.loop_lag import LoopLag
from gateway.runtime.periodic import Periodic
from gateway.scheduling.model import ServiceName
from gateway.server.admin import AdminPages
from gateway.server.admin_access import AdminAccess
from gateway.server.api_keys import AccessControl
from gateway.server.app import Background, Gateway, ListenOptions
from gateway.server.entrance import Entrance
from gateway.server.front_end import FrontEnd
from gateway.server.openapi import ApiDescription
from gateway.server.proxy_handler import ProxyHandler, RequestObserver
from gateway.server.routes import PoolDirectory
from gateway.server.status_page.build import build_live_page
from gateway.settings.rendering import effective_configuration
from gateway.settings.schema import Settings
from gateway.settings.tracing import TracingSettings
from gateway.telemetry.control_collector import ControlCollector, SourceFigures
from gateway.telemetry.log_output import configure_logging
from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.request_log import RequestLog
from gateway.telemetry.request_record import RequestRecord
from gateway.telemetry.scrape_collectors import (
    ConnectionsCollector,
    LoopLagCollector,
    LostLinesCollector,
    SchedulerCollector,
)

if TYPE_CHECKING:
    from gateway.telemetry.tracing import RequestTracing

_LOG = logging.getLogger("gateway")
_LOG_FLUSH_S = 1.0
_COLLECT_EVERY = (10_000, 20, 20)
"""Thresholds of the garbage collector. A request leaves no cycles behind, only some 30 objects in
bounded records; the default (700, 10, 10) looks through those so often that it costs a fifth of the
time. docs/decisions/0003-collector-and-event-loop.md"""
_DESCRIPTORS_PER_STREAM = 2
_DESCRIPTORS_KEPT = 200
"""Descriptors that are not streams: listeners, polls of servers, files, the interpreter's."""


class Assembled(NamedTuple):
    """The gateway, and what changes it while it runs."""

    gateway: Gateway
    configuration: ConfigurationInForce
    reloader: Reloader


async def serve(
    settings: Settings,
    *,
    load: Callable[[], Settings] | None = None,
    started: Callable[[int, int], None] | None = None,
) -> None:
    """Run the gateway until SIGTERM or SIGINT; a second signal ends it at once.

    Args:
        settings: the configuration.
        load: reads the configuration again, on SIGHUP; without it there is nothing new to read.
        started: called with the ports of clients and administrators once both listen.

    Raises:
        OSError: an address or the journal cannot be opened.
    """
    configure_logging(level=settings.log_level, as_json=settings.log_format == "json")
    _raise_descriptor_limit()
    stop = asyncio.Event()
    with ExitStack() as files:
        gateway, configuration, reloader = build_gateway(settings, files, load=load)
        _stop_on_signals(stop)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.request)
        _LOG.info("configuration in force:\n%s", effective_configuration(settings))

        def announce(client_port: int, admin_port: int) -> None:
            _LOG.info(
                "clients: %s://%s:%d/v1  administration: %s://%s:%d  (up to %d streams)",
                "https" if settings.tls_certificate else "http",
                settings.host,
                client_port,
                "https" if settings.admin_tls else "http",
                settings.admin_host,
                admin_port,
                _streams_allowed(),
            )
            if started is not None:
                started(client_port, admin_port)

        # What exists now lives as long as the process: no collection needs to look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECT_EVERY)
        await gateway.run(
            stop=stop, drain_s=lambda: configuration.settings.drain_timeout, started=announce
        )


def build_gateway(
    settings: Settings, files: ExitStack, *, load: Callable[[], Settings] | None = None
) -> Assembled:
    """Make and wire everything; what must be closed at the end goes into `files`.

    Raises:
        OSError: a file cannot be opened.
        ConfigurationError: the file of what administrators changed cannot be used.
    """
    seed = secrets.randbits(32) if settings.seed is None else settings.seed
    registry = CollectorRegistry()
    pools = build_pools(settings, seed, files)
    directory = PoolDirectory([pool.serving for pool in pools])
    metrics = RequestMetrics(services=_service_names(settings))
    registry.register(metrics)
    registry.register(SchedulerCollector([pool.serving.driver.snapshot for pool in pools]))
    live = build_live_page(
        pools=directory,
        metrics=metrics,
        clock=monotonic_clock,
        wall_clock=wall_clock,
        version=version("llm-instance-gateway"),
    )
    observers: list[RequestObserver] = [metrics, live.recent]
    lag = LoopLagCollector()
    registry.register(lag)
    background: list[Background] = [
        *(pool.monitor for pool in pools),
        live.feed,
        LoopLag(lag.observe, clock=monotonic_clock),
    ]
    if settings.request_log is not None:
        log = RequestLog(_request_log(settings.request_log, files), wall_clock=wall_clock)
        observers.append(log)
        background.append(Periodic(log.flush, interval_s=_LOG_FLUSH_S))
        registry.register(LostLinesCollector({"request_log": lambda: log.lost_lines}))
    access = AccessControl(clock=monotonic_clock, salt=secrets.token_bytes(16))
    entrance = Entrance(access=access, pools=directory, clock=monotonic_clock)
    proxy = ProxyHandler(
        pools=directory,
        options=front_end_options(settings),
        clock=monotonic_clock,
        new_id=_id_source(),
        observer=_Observers(observers),
        entrance=entrance,
    )
    tracing = _tracing(files)
    if tracing is not None:
        proxy.trace_with(tracing)
        observers.append(tracing)
    front_end = FrontEnd(
        proxy=proxy, pools=directory, options=front_end_options(settings), entrance=entrance
    )
    certificate = ServingCertificate(settings)
    configuration = ConfigurationInForce(settings, load=load or (lambda: settings))
    configuration.add(
        certificate.follow,
        ServedPools(pools, directory=directory).follow,
        lambda new: partial(metrics.set_services, _service_names(new)),
        lambda new: partial(front_end.reconfigure, front_end_options(new)),
        lambda new: partial(_follow_logging, configuration.settings, new),
    )
    discovery = Discovery(
        [pool.servers for pool in pools],
        configuration,
        clock=monotonic_clock,
        rng=Random(f"{seed} discovery"),
    )
    configuration.add(discovery.follow)
    changes = OperatorChanges(
        [pool.servers for pool in pools], configuration, file=settings.admin_changes_file
    )
    registry.register(_control_collector(pools, discovery, configuration))
    reloader = Reloader(configuration, files=lambda: _reload_files(configuration.settings))
    background += [discovery, reloader]
    pages = AdminPages(
        pools=directory,
        render_metrics=lambda: generate_latest(registry),
        sections=[
            AdminApi(pools, changes=changes, configuration=configuration),
            live.pages,
            ApiDescription(),
        ],
    )
    admin = AdminAccess(pages.handle, host=settings.admin_host)
    rules = AccessRules(access=access, entrance=entrance, admin=admin)
    rules.follow(settings)()
    configuration.add(rules.follow)
    limits = connection_limits(settings, descriptors=_streams_allowed())
    gateway = Gateway(
        front_end=front_end,
        admin=admin,
        pools=directory,
        background=background,
        listen=(
            ListenOptions(
                host=settings.host,
                port=settings.port,
                idle_s=settings.client_idle_timeout,
                tls=certificate.context,
                limits=limits,
            ),
            ListenOptions(
                host=settings.admin_host,
                port=settings.admin_port,
                tls=certificate.context if settings.admin_tls else None,
            ),
        ),
    )
    registry.register(ConnectionsCollector(*gateway.connections))
    return Assembled(gateway, configuration, reloader)


def _tracing(files: ExitStack) -> "RequestTracing | None":
    """Traces, where a collector is named; what needs OpenTelemetry is imported only then."""
    if not TracingSettings().wanted:
        return None
    try:
        from gateway.telemetry.trace_export import export_traces  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        _LOG.warning(
            "no traces: OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed;"
            " pip install 'llm-instance-gateway[tracing]'"
        )
        return None
    tracing = export_traces(rng=Random(secrets.randbits(128)), wall_clock=wall_clock)
    files.callback(tracing.close)
    return tracing


def _service_names(settings: Settings) -> list[ServiceName]:
    return [
        ServiceName(service.name)
        for pool in settings.effective_pools()
        for service in pool.services
    ]


def _control_collector(
    pools: Sequence[ServedPool], discovery: Discovery, configuration: ConfigurationInForce
) -> ControlCollector:
    return ControlCollector(
        servers=lambda: {
            (pool.servers.name, state): count
            for pool in pools
            for state, count in pool.servers.counts().items()
        },
        sources=lambda: [
            SourceFigures(report.pool, report.source, report.errors, report.age_s)
            for report in discovery.reports
        ],
        reloads=lambda: {
            "ok": configuration.reloads,
            "failed": configuration.failed_reloads,
        },
    )


def _follow_logging(old: Settings, new: Settings) -> None:
    if (new.log_level, new.log_format) != (old.log_level, old.log_format):
        configure_logging(level=new.log_level, as_json=new.log_format == "json")


def _reload_files(settings: Settings) -> tuple[Path, ...]:
    """Files that are looked at for changes."""
    if not settings.reload_on_change:
        return ()
    named = (settings.file, settings.api_keys_file, settings.tls_certificate, settings.tls_key)
    return tuple(path for path in named if path is not None)


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


def _raise_descriptor_limit() -> None:
    """Raise the soft limit on open files to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _streams_allowed() -> int:
    """How many streams the limit on open files leaves room for."""
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
        self._observers = observers

    def request_ended(self, record: RequestRecord) -> None:
        for observer in self._observers:
            observer.request_ended(record)
