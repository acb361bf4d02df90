"""Metrics that are read off the gateway's state when a scrape asks, and cost nothing before."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gateway.scheduling.snapshot import BackendSnapshot, SchedulerSnapshot, ServiceSnapshot
from gateway.telemetry import metric_definitions as definitions
from gateway.telemetry import server_metric_definitions as servers
from gateway.telemetry.histogram import BucketCounts
from gateway.telemetry.metric_kinds import MetricDefinition, MetricKind

_Samples = Sequence[tuple[tuple[str, ...], float | None]]


class SchedulerCollector(Collector):
    """Queues, services and servers, from a snapshot of each pool's scheduler."""

    def __init__(self, snapshots: Sequence[Callable[[], SchedulerSnapshot]]) -> None:
        """Take one function per pool, such as `ServingPool.snapshot`."""
        self._snapshots = snapshots

    def collect(self) -> Iterator[Metric]:
        """Take the snapshots and tell them."""
        pools = [snapshot() for snapshot in self._snapshots]
        yield family_of(
            definitions.QUEUE_DEPTH,
            [
                ((pool.pool, queue.service, str(queue.priority)), queue.requests)
                for pool in pools
                for queue in pool.queues
            ],
        )
        for definition, value_of_pool in _OF_POOLS:
            yield family_of(definition, [((pool.pool,), value_of_pool(pool)) for pool in pools])
        for definition, value_of_service in _OF_SERVICES:
            yield family_of(
                definition,
                [
                    (
                        (pool.pool, service.service, str(service.priority)),
                        value_of_service(service),
                    )
                    for pool in pools
                    for service in pool.services
                ],
            )
        yield family_of(
            servers.BACKEND_FAILURES,
            [
                ((pool.pool, backend.backend_id, kind), count)
                for pool in pools
                for backend in pool.backends
                for kind, count in backend.failures.items()
            ],
        )
        for definition, value_of_backend in _OF_BACKENDS:
            yield family_of(
                definition,
                [
                    ((pool.pool, backend.backend_id), value_of_backend(backend))
                    for pool in pools
                    for backend in pool.backends
                ],
            )


class LoopLagCollector(Collector):
    """How late the event loop was."""

    def __init__(self) -> None:
        """Start without measurements."""
        self._lag = BucketCounts(definitions.LOOP_LAG.buckets)

    def observe(self, late_s: float) -> None:
        """Take in one measurement."""
        self._lag.observe(late_s)

    def collect(self) -> Iterator[Metric]:
        """Tell how they are distributed."""
        family = HistogramMetricFamily(definitions.LOOP_LAG.name, definitions.LOOP_LAG.meaning)
        family.add_metric((), self._lag.cumulative(), self._lag.sum)
        yield family


class LostLinesCollector(Collector):
    """Lines that outputs could not write."""

    def __init__(self, lost_lines: Mapping[str, Callable[[], int]]) -> None:
        """Take a function per output, by the output's name."""
        self._lost_lines = lost_lines

    def collect(self) -> Iterator[Metric]:
        """Ask each output."""
        samples = [((output,), lost()) for output, lost in self._lost_lines.items()]
        yield family_of(definitions.LOST_LINES, samples)


class _Connections(Protocol):
    """What is asked of a listener's connections."""

    @property
    def counts(self) -> Mapping[Any, int]:
        """Those that were cut, by reason."""
        ...

    def __len__(self) -> int: ...


class ConnectionsCollector(Collector):
    """Connections of the listeners."""

    def __init__(self, clients: _Connections, administrators: _Connections) -> None:
        """Take the connections of both listeners."""
        self._listeners = (("clients", clients), ("administration", administrators))

    def collect(self) -> Iterator[Metric]:
        """Count what is open, and tell what was cut."""
        yield family_of(
            definitions.CONNECTIONS, [((name,), len(each)) for name, each in self._listeners]
        )
        yield family_of(
            definitions.CUT_CONNECTIONS,
            [
                ((name, str(reason)), count)
                for name, each in self._listeners
                for reason, count in each.counts.items()
            ],
        )


def family_of(definition: MetricDefinition, samples: _Samples) -> Metric:
    """A family with a sample per tuple of labels; values that are None are left out."""
    kind = CounterMetricFamily if definition.kind is MetricKind.COUNTER else GaugeMetricFamily
    family = kind(definition.name, definition.meaning, labels=definition.labels)
    for labels, value in samples:
        if value is not None:
            family.add_metric(labels, value)
    return family


_OF_POOLS: tuple[tuple[MetricDefinition, Callable[[SchedulerSnapshot], float]], ...] = (
    (definitions.QUEUE_BYTES, lambda pool: pool.queued_bytes),
    (definitions.TRACKED, lambda pool: pool.tracked_requests),
    (definitions.DRAINING, lambda pool: pool.draining),
    (definitions.PANIC, lambda pool: pool.panic),
    (definitions.IGNORED_EVENTS, lambda pool: pool.ignored_events),
)
_OF_SERVICES: tuple[tuple[MetricDefinition, Callable[[ServiceSnapshot], float | None]], ...] = (
    (definitions.SERVICE_ATTAINMENT, lambda service: service.attainment),
    (definitions.SERVICE_BURN, lambda service: service.burn),
    (definitions.SERVICE_TARGET, lambda service: service.target),
    (definitions.SERVICE_JUDGED, lambda service: service.judged_total),
    (definitions.SERVICE_MISSED, lambda service: service.missed_total),
    (definitions.SERVICE_IN_FLIGHT, lambda service: service.in_flight),
    (definitions.SERVICE_EXPECTED_MISSES, lambda service: service.expected_misses),
)
_OF_BACKENDS: tuple[tuple[MetricDefinition, Callable[[BackendSnapshot], float | None]], ...] = (
    (servers.BACKEND_USABLE, lambda server: server.usable and not server.draining),
    (servers.BACKEND_SATURATION, lambda server: server.saturation),
    (servers.BACKEND_FULL, lambda server: server.full),
    (servers.BACKEND_EJECTED, lambda server: server.ejected),
    (servers.BACKEND_EJECTIONS, lambda server: server.ejections),
    (servers.BACKEND_FAILURE_RATE, lambda server: server.failure_rate),
    (servers.BACKEND_IN_FLIGHT, lambda server: server.requests),
    (servers.BACKEND_EXTERNAL, lambda server: server.external_running),
    (servers.BACKEND_PREFILL, lambda server: server.pending_prefill_tokens),
    (servers.BACKEND_KV_RESERVED, lambda server: server.kv_reserved_tokens),
    (servers.BACKEND_KV_USAGE, lambda server: server.reported_kv_usage),
    (servers.BACKEND_WAITING, lambda server: server.reported_waiting),
    (servers.BACKEND_REPORT_AGE, lambda server: server.report_age_s),
    (servers.ADAPTERS_ACTIVE, lambda server: len(server.active_adapters)),
    (servers.ADAPTERS_RESIDENT, lambda server: len(server.resident_adapters)),
    (servers.ADAPTER_SLOTS, lambda server: server.max_loras),
    (servers.BACKEND_TTFT_ERROR, lambda server: server.ttft_forecasts.relative_error),
    (servers.BACKEND_TTFT_COVERAGE, lambda server: server.ttft_forecasts.p90_coverage),
    (servers.BACKEND_TTFT_SAMPLES, lambda server: server.ttft_forecasts.samples),
    (servers.BACKEND_TPOT_ERROR, lambda server: server.tpot_forecasts.relative_error),
    (servers.BACKEND_TPOT_COVERAGE, lambda server: server.tpot_forecasts.p90_coverage),
    (servers.BACKEND_TPOT_SAMPLES, lambda server: server.tpot_forecasts.samples),
    (servers.BACKEND_TRUST, lambda server: server.forecast_trust),
)
