"""What a metric is: a name, a kind, a meaning and labels."""

from enum import StrEnum
from typing import NamedTuple


class MetricKind(StrEnum):
    """The kinds of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class MetricDefinition(NamedTuple):
    """One metric family; `buckets` are upper bounds in the unit of the name."""

    name: str
    kind: MetricKind
    meaning: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


def counter(name: str, meaning: str, *labels: str) -> MetricDefinition:
    """Something that is counted; the name ends in `_total`."""
    return MetricDefinition(name, MetricKind.COUNTER, meaning, labels)


def gauge(name: str, meaning: str, *labels: str) -> MetricDefinition:
    """Something that goes up and down."""
    return MetricDefinition(name, MetricKind.GAUGE, meaning, labels)


def histogram(
    name: str, meaning: str, labels: tuple[str, ...], buckets: tuple[float, ...]
) -> MetricDefinition:
    """How something is distributed; `buckets` are upper bounds, infinity left out."""
    return MetricDefinition(name, MetricKind.HISTOGRAM, meaning, labels, buckets)
