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
from gateway.telemetry.histogram import BucketCounts
from gateway.telemetry.metric_definitions import MetricDefinition, MetricKind

_Samples = Sequence[tuple[tuple[str, ...], float | None]]


class SchedulerCollector(Collector):
    """Queues, services and servers, from a snapshot of each pool's scheduler."""

    def __init__(self, snapshots: Sequence[Callable[[], SchedulerSnapshot]]) -> None:
        """Take one function per pool, such as `SchedulerDriver.snapshot`."""
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
            definitions.BACKEND_FAILURES,
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
    (definitions.BACKEND_USABLE, lambda server: server.usable and not server.draining),
    (definitions.BACKEND_SATURATION, lambda server: server.saturation),
    (definitions.BACKEND_FULL, lambda server: server.full),
    (definitions.BACKEND_EJECTED, lambda server: server.ejected),
    (definitions.BACKEND_EJECTIONS, lambda server: server.ejections),
    (definitions.BACKEND_FAILURE_RATE, lambda server: server.failure_rate),
    (definitions.BACKEND_IN_FLIGHT, lambda server: server.requests),
    (definitions.BACKEND_EXTERNAL, lambda server: server.external_running),
    (definitions.BACKEND_PREFILL, lambda server: server.pending_prefill_tokens),
    (definitions.BACKEND_KV_RESERVED, lambda server: server.kv_reserved_tokens),
    (definitions.BACKEND_KV_USAGE, lambda server: server.reported_kv_usage),
    (definitions.BACKEND_WAITING, lambda server: server.reported_waiting),
    (definitions.BACKEND_REPORT_AGE, lambda server: server.report_age_s),
    (definitions.ADAPTERS_ACTIVE, lambda server: len(server.active_adapters)),
    (definitions.ADAPTERS_RESIDENT, lambda server: len(server.resident_adapters)),
    (definitions.ADAPTER_SLOTS, lambda server: server.max_loras),
    (definitions.BACKEND_TTFT_ERROR, lambda server: server.ttft_forecasts.relative_error),
    (definitions.BACKEND_TTFT_COVERAGE, lambda server: server.ttft_forecasts.p90_coverage),
    (definitions.BACKEND_TTFT_SAMPLES, lambda server: server.ttft_forecasts.samples),
    (definitions.BACKEND_TPOT_ERROR, lambda server: server.tpot_forecasts.relative_error),
    (definitions.BACKEND_TPOT_COVERAGE, lambda server: server.tpot_forecasts.p90_coverage),
    (definitions.BACKEND_TPOT_SAMPLES, lambda server: server.tpot_forecasts.samples),
    (definitions.BACKEND_TRUST, lambda server: server.forecast_trust),
)
