"""Makes what watches the gateway: metrics, the live page, the request log and traces."""

import logging
import secrets
import sys
from contextlib import ExitStack
from importlib.metadata import version
from io import FileIO
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry

from gateway.runtime.clock import monotonic_clock, wall_clock
from gateway.runtime.loop_lag import LoopLag
from gateway.runtime.periodic import Periodic
from gateway.scheduling.model import ServiceName
from gateway.server.app import Background
from gateway.server.proxy_handler import RequestObserver
from gateway.server.routes import PoolDirectory
from gateway.server.status_page.build import LivePage, build_live_page
from gateway.settings.schema import Settings
from gateway.settings.tracing import TracingSettings
from gateway.telemetry.ended_requests import EndedRequests
from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.request_log import RequestLog
from gateway.telemetry.request_record import RequestRecord
from gateway.telemetry.scrape_collectors import (
    LoopLagCollector,
    LostLinesCollector,
    SchedulerCollector,
)

if TYPE_CHECKING:
    from gateway.telemetry.tracing import RequestTracing

_LOG = logging.getLogger("gateway")
_LOG_DELAY_S = 0.1
"""What is lost of the log when the process is killed outright."""


class Telemetry(NamedTuple):
    """What watches.

    Attributes:
        registry: of all that /metrics shows; others may register there too.
        observer: is to be told of each finished request.
        background: what has to run meanwhile.
    """

    registry: CollectorRegistry
    metrics: RequestMetrics
    live: LivePage
    observer: RequestObserver
    background: list[Background]
    tracing: "RequestTracing | None"


def build_telemetry(settings: Settings, pools: PoolDirectory, files: ExitStack) -> Telemetry:
    """Make it; what must be closed at the end goes into `files`.

    Raises:
        OSError: the request log cannot be opened.
        ConfigurationError: traces are asked for, but not where they are to go.
    """
    registry = CollectorRegistry()
    ended = EndedRequests(wall_clock=wall_clock)
    metrics = RequestMetrics(services=service_names(settings), ended=ended)
    lag = LoopLagCollector()
    registry.register(metrics)
    registry.register(SchedulerCollector([pool.snapshot for pool in pools.pools]))
    registry.register(lag)
    live = build_live_page(
        pools=pools,
        metrics=metrics,
        ended=ended,
        clock=monotonic_clock,
        wall_clock=wall_clock,
        version=version("llm-instance-gateway"),
    )
    background: list[Background] = [live.feed, LoopLag(lag.observe, clock=monotonic_clock)]
    if settings.request_log is not None:
        log = RequestLog(_request_log(settings.request_log, files), ended=ended)
        # Requests end until the last connection is closed, when nothing runs in the background.
        files.callback(ended.settle)
        background.append(Periodic(ended.settle, interval_s=_LOG_DELAY_S))
        registry.register(LostLinesCollector({"request_log": lambda: log.lost_lines}))
    tracing = _tracing(files)
    observer = ended if tracing is None else _Traced(ended, tracing)
    return Telemetry(registry, metrics, live, observer, background, tracing)


def service_names(settings: Settings) -> list[ServiceName]:
    """The services that get series of their own."""
    return [
        ServiceName(service.name)
        for pool in settings.effective_pools()
        for service in pool.services
    ]


def _tracing(files: ExitStack) -> "RequestTracing | None":
    """Traces, where a collector is named; what needs OpenTelemetry is imported only then."""
    if not TracingSettings().wanted():
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


def _request_log(path: Path, files: ExitStack) -> FileIO:
    """The file that lines are appended to; `-` is standard output."""
    if str(path) == "-":
        return FileIO(sys.stdout.fileno(), "w", closefd=False)
    log = FileIO(path, "a")
    files.callback(_close, log)
    return log


def _close(log: FileIO) -> None:
    try:
        log.close()
    except OSError as error:
        _LOG.error("the request log was not closed: %s", error)


class _Traced:
    """Tells the tracing of each finished request, too."""

    def __init__(self, ended: EndedRequests, tracing: RequestObserver) -> None:
        self._ended = ended
        self._tracing = tracing

    def request_ended(self, record: RequestRecord) -> None:
        self._ended.request_ended(record)
        self._tracing.request_ended(record)
