"""Counts finished requests for Prometheus.

Series are made once per service and kept. Requests of services that are not configured share one,
so that clients cannot make new ones. Counting is plain arithmetic on the loop's thread, of many
requests at once; a scrape, on the same thread, makes prometheus-client's families of it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.scheduling.model import ServiceName
from gateway.scheduling.service_directory import DEFAULT_SERVICE
from gateway.telemetry import metric_definitions as definitions
from gateway.telemetry.ended_requests import EndedRequests
from gateway.telemetry.histogram import BucketCounts
from gateway.telemetry.metric_kinds import MetricDefinition
from gateway.telemetry.request_record import Outcome, RequestRecord

OTHER_SERVICE: Final = ServiceName("other")
"""The label of requests that reached no configured service."""

_OK: Final = Outcome.OK
"""A member of an enumeration takes Python 3.11 some times as long to look up as a name."""

ServiceLabels = tuple[str, str, str]
"""Pool, service and priority of a series; pool and priority are empty for `OTHER_SERVICE`."""


class ServiceSeries:
    """What was counted of one service."""

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.refusals: dict[str, int] = {}
        self.failures: dict[str, int] = {}
        self.retries = 0
        self.continuations = 0
        self.fallbacks = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.completion_tokens = 0
        self.e2e = BucketCounts(definitions.E2E.buckets)
        self.ttft = BucketCounts(definitions.TTFT.buckets)
        self.tpot = BucketCounts(definitions.TPOT.buckets)
        self.ntpot = BucketCounts(definitions.NTPOT.buckets)
        self.queue_wait = BucketCounts(definitions.QUEUE_WAIT.buckets)
        self.overhead = BucketCounts(definitions.OVERHEAD.buckets)
        self.ttft_error = BucketCounts(definitions.TTFT_ERROR.buckets)
        self.tpot_error = BucketCounts(definitions.TPOT_ERROR.buckets)

    def count(self, record: RequestRecord) -> None:
        """Count one request of this service."""
        # Each attribute is read once: the record is no compiled class.
        outcome = record.outcome
        _increment(self.outcomes, outcome)
        reason = record.reason
        if reason is not None:
            failed = outcome is Outcome.FAILED or outcome is Outcome.STREAM_ERROR
            _increment(self.failures if failed else self.refusals, reason)
        if record.fallback_for is not None:
            self.fallbacks += 1
        attempts = record.attempts
        if attempts:
            self.queue_wait.observe(record.queue_s)
            self.retries += attempts - 1
            self.continuations += record.continuations
        overhead_s = record.overhead_s
        if overhead_s is not None:
            self.overhead.observe(overhead_s)
        self.prompt_tokens += record.prompt_tokens or 0
        self.cached_tokens += record.cached_tokens or 0
        self.completion_tokens += record.completion_tokens or 0
        if outcome is _OK:
            self._observe_latency(record)

    def _observe_latency(self, record: RequestRecord) -> None:
        self.e2e.observe(record.e2e_s)
        ntpot_s = record.ntpot_s
        if ntpot_s is not None:
            self.ntpot.observe(ntpot_s)
        ttft_s = record.ttft_s
        if ttft_s is not None:
            self.ttft.observe(ttft_s)
            forecast_s, actual_s = record.forecast_ttft_s, record.dispatch_ttft_s
            if forecast_s is not None and actual_s:
                self.ttft_error.observe(abs(forecast_s - actual_s) / actual_s)
        tpot_s = record.tpot_s
        if tpot_s is not None:
            self.tpot.observe(tpot_s)
            forecast_s = record.forecast_tpot_s
            if forecast_s is not None and tpot_s:
                self.tpot_error.observe(abs(forecast_s - tpot_s) / tpot_s)


class RequestMetrics(Collector):
    """Observes finished requests and tells scrapes; register it with a CollectorRegistry."""

    def __init__(self, *, services: Iterable[ServiceName], ended: EndedRequests) -> None:
        """Count what ends from now on; `services` are those that get series of their own."""
        self._ended = ended
        self._series: dict[ServiceLabels, ServiceSeries] = {}
        self._key_outcomes: dict[tuple[str, str], int] = {}
        self._key_tokens: dict[tuple[str, str], int] = {}
        self.set_services(services)
        ended.tell(self)

    def set_services(self, services: Iterable[ServiceName]) -> None:
        """Change which services get series of their own; what was counted stays."""
        self._ended.settle()
        self._services = frozenset({*services, DEFAULT_SERVICE})
        self._known: dict[tuple[str | None, ServiceName | None, int | None], ServiceSeries] = {}

    def requests_ended(self, records: Sequence[RequestRecord], _: Sequence[float], /) -> None:
        """Count some requests."""
        for record in records:
            series = self._known.get((record.pool, record.service, record.priority))
            if series is None:
                series = self._series_of(record)
            series.count(record)
            key = record.key
            if key is not None:
                self._count_key(key, record)

    def _series_of(self, record: RequestRecord) -> ServiceSeries:
        """Find or make it; that of a service with series of its own is found faster from now on."""
        service = record.service
        known = service in self._services
        labels = ("", OTHER_SERVICE, "")
        if service is not None and known:
            labels = (record.pool or "", service, str(record.priority))
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = ServiceSeries()
        if known:
            self._known[record.pool, service, record.priority] = series
        return series

    def _count_key(self, key: str, record: RequestRecord) -> None:
        outcomes = self._key_outcomes
        outcomes[key, record.outcome] = outcomes.get((key, record.outcome), 0) + 1
        for kind, tokens in (
            ("prompt", record.prompt_tokens),
            ("completion", record.completion_tokens),
        ):
            if tokens:
                self._key_tokens[key, kind] = self._key_tokens.get((key, kind), 0) + tokens

    @property
    def series(self) -> Mapping[ServiceLabels, ServiceSeries]:
        """What was counted of all that has ended so far; not to be changed."""
        self._ended.settle()
        return self._series

    def collect(self) -> Iterator[Metric]:
        """Tell what was counted."""
        series = self.series.items()
        yield _by_label(definitions.REQUESTS, [(labels, s.outcomes) for labels, s in series])
        yield _by_label(definitions.REFUSALS, [(labels, s.refusals) for labels, s in series])
        yield _by_label(definitions.FAILURES, [(labels, s.failures) for labels, s in series])
        for definition, count_of in _COUNTERS:
            counter = CounterMetricFamily(
                definition.name, definition.meaning, labels=definition.labels
            )
            for labels, counted in series:
                counter.add_metric(labels, count_of(counted))
            yield counter
        for definition, counted_of_keys in (
            (definitions.KEY_REQUESTS, self._key_outcomes),
            (definitions.KEY_TOKENS, self._key_tokens),
        ):
            counter = CounterMetricFamily(
                definition.name, definition.meaning, labels=definition.labels
            )
            for key_labels, count in counted_of_keys.items():
                counter.add_metric(key_labels, count)
            yield counter
        for definition, buckets_of in _HISTOGRAMS:
            histogram = HistogramMetricFamily(
                definition.name, definition.meaning, labels=definition.labels
            )
            for labels, counted in series:
                buckets = buckets_of(counted)
                histogram.add_metric(labels, buckets.cumulative(), buckets.sum)
            yield histogram


def _increment(counts: dict[str, int], label: str) -> None:
    counts[label] = counts.get(label, 0) + 1


def _by_label(
    definition: MetricDefinition, counted: Iterable[tuple[ServiceLabels, dict[str, int]]]
) -> Metric:
    counter = CounterMetricFamily(definition.name, definition.meaning, labels=definition.labels)
    for labels, counts in counted:
        for label, count in counts.items():
            counter.add_metric((*labels, label), count)
    return counter


_COUNTERS: tuple[tuple[MetricDefinition, Callable[[ServiceSeries], int]], ...] = (
    (definitions.RETRIES, lambda series: series.retries),
    (definitions.CONTINUATIONS, lambda series: series.continuations),
    (definitions.FALLBACKS, lambda series: series.fallbacks),
    (definitions.PROMPT_TOKENS, lambda series: series.prompt_tokens),
    (definitions.CACHED_TOKENS, lambda series: series.cached_tokens),
    (definitions.COMPLETION_TOKENS, lambda series: series.completion_tokens),
)
_HISTOGRAMS: tuple[tuple[MetricDefinition, Callable[[ServiceSeries], BucketCounts]], ...] = (
    (definitions.E2E, lambda series: series.e2e),
    (definitions.TTFT, lambda series: series.ttft),
    (definitions.TPOT, lambda series: series.tpot),
    (definitions.NTPOT, lambda series: series.ntpot),
    (definitions.QUEUE_WAIT, lambda series: series.queue_wait),
    (definitions.OVERHEAD, lambda series: series.overhead),
    (definitions.TTFT_ERROR, lambda series: series.ttft_error),
    (definitions.TPOT_ERROR, lambda series: series.tpot_error),
)
