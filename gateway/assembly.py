"""The one place where the live gateway's objects are made and wired; the only seed source."""

import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

from prometheus_client import generate_latest

from gateway.control.access import AccessRules, ServingCertificate
from gateway.control.admin_api import AdminApi
from gateway.control.configuration import ConfigurationInForce
from gateway.control.discovery import Discovery
from gateway.control.operator_changes import OperatorChanges
from gateway.control.reload import Reloader
from gateway.control.served_pools import ServedPool, ServedPools
from gateway.control.server_options import connection_limits, front_end_options
from gateway.pool_assembly import build_pools
from gateway.runtime.clock import monotonic_clock
from gateway.runtime.open_files import streams_allowed
from gateway.server.admin import AdminPages
from gateway.server.admin_access import AdminAccess
from gateway.server.api_keys import AccessControl
from gateway.server.app import Background, Gateway, ListenOptions
from gateway.server.entrance import Entrance
from gateway.server.front_end import FrontEnd
from gateway.server.openapi import ApiDescription
from gateway.server.proxy_handler import ProxyHandler
from gateway.server.request_ids import RequestIds
from gateway.server.routes import PoolDirectory
from gateway.settings.schema import Settings
from gateway.telemetry.control_collector import ControlCollector, SourceFigures
from gateway.telemetry.log_output import configure_logging
from gateway.telemetry.scrape_collectors import ConnectionsCollector
from gateway.telemetry_assembly import build_telemetry, service_names


class Assembled(NamedTuple):
    """The gateway, and what changes it while it runs."""

    gateway: Gateway
    configuration: ConfigurationInForce
    reloader: Reloader


def build_gateway(
    settings: Settings, files: ExitStack, *, load: Callable[[], Settings] | None = None
) -> Assembled:
    """Make and wire everything; what must be closed at the end goes into `files`.

    Raises:
        OSError: a file cannot be opened.
        ConfigurationError: the file of what administrators changed cannot be used.
    """
    seed = secrets.randbits(32) if settings.seed is None else settings.seed
    pools = build_pools(settings, seed, files)
    directory = PoolDirectory([pool.serving for pool in pools])
    telemetry = build_telemetry(settings, directory, files)
    access = AccessControl(clock=monotonic_clock, salt=secrets.token_bytes(16))
    entrance = Entrance(access=access, pools=directory, clock=monotonic_clock)
    proxy = ProxyHandler(
        pools=directory,
        options=front_end_options(settings),
        clock=monotonic_clock,
        new_id=RequestIds(secrets.token_hex(6)).new,
        observer=telemetry.observer,
        entrance=entrance,
    )
    if telemetry.tracing is not None:
        proxy.trace_with(telemetry.tracing)
    front_end = FrontEnd(
        proxy=proxy, pools=directory, options=front_end_options(settings), entrance=entrance
    )
    certificate = ServingCertificate(settings)
    configuration = ConfigurationInForce(settings, load=load or (lambda: settings))
    configuration.add(
        certificate.follow,
        ServedPools(pools, directory=directory).follow,
        lambda new: partial(telemetry.metrics.set_services, service_names(new)),
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
    telemetry.registry.register(_control_collector(pools, discovery, configuration))
    reloader = Reloader(configuration, files=lambda: _reload_files(configuration.settings))
    background: list[Background] = [
        *(pool.monitor for pool in pools),
        *telemetry.background,
        discovery,
        reloader,
    ]
    pages = AdminPages(
        pools=directory,
        render_metrics=lambda: generate_latest(telemetry.registry),
        sections=[
            AdminApi(pools, changes=changes, configuration=configuration),
            telemetry.live.pages,
            ApiDescription(),
        ],
    )
    admin = AdminAccess(pages.handle, host=settings.admin_host)
    rules = AccessRules(access=access, entrance=entrance, admin=admin)
    rules.follow(settings)()
    configuration.add(rules.follow)
    limits = connection_limits(settings, descriptors=streams_allowed())
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
    telemetry.registry.register(ConnectionsCollector(*gateway.connections))
    return Assembled(gateway, configuration, reloader)


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
