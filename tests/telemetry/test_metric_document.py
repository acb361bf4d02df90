import re
from itertools import chain
from pathlib import Path
from random import Random

from prometheus_client import CollectorRegistry, generate_latest

from gateway.scheduling.build import build_scheduler
from gateway.server.client_connections import ClientConnections
from gateway.server.options import ConnectionLimits
from gateway.telemetry.control_collector import ControlCollector
from gateway.telemetry.ended_requests import EndedRequests
from gateway.telemetry.metric_definitions import SECTIONS
from gateway.telemetry.metric_document import metric_document
from gateway.telemetry.metric_kinds import MetricKind
from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.scrape_collectors import (
    ConnectionsCollector,
    LoopLagCollector,
    LostLinesCollector,
    SchedulerCollector,
)
from tests.builders import make_policy

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
DEFINITIONS = tuple(chain.from_iterable(definitions for _, definitions in SECTIONS))
LIMITS = ConnectionLimits()
UNITS = ("seconds", "bytes", "tokens", "requests", "sequences", "ratio")


def scraped_families() -> dict[str, str]:
    """Name -> type of the families on the page of a gateway that has seen nothing yet."""
    scheduler = build_scheduler(make_policy(), Random(1))
    registry = CollectorRegistry()
    registry.register(RequestMetrics(services=[], ended=EndedRequests(wall_clock=lambda: 0.0)))
    registry.register(SchedulerCollector([lambda: scheduler.snapshot(now=0.0)]))
    registry.register(LostLinesCollector({}))
    registry.register(LoopLagCollector())
    registry.register(ConnectionsCollector(ClientConnections(LIMITS), ClientConnections(LIMITS)))
    registry.register(ControlCollector(servers=dict, sources=list, reloads=dict))
    page = generate_latest(registry).decode()
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))


def test_the_document_is_the_generated_one() -> None:
    again = "python -m gateway.telemetry.metric_document > docs/metrics.md"
    assert DOCUMENT.read_text() == metric_document(), f"run: {again}"


def test_a_scrape_has_exactly_the_documented_metrics() -> None:
    assert scraped_families() == {definition.name: definition.kind for definition in DEFINITIONS}


def test_names_are_ours_and_unique() -> None:
    names = [definition.name for definition in DEFINITIONS]
    assert all(re.fullmatch(r"llm_gateway_[a-z0-9_]+", name) for name in names)
    assert len(set(names)) == len(names)


def test_counters_end_in_total_and_histograms_in_their_unit() -> None:
    for definition in DEFINITIONS:
        counts = definition.kind is MetricKind.COUNTER
        assert definition.name.endswith("_total") is counts, definition.name
        if definition.kind is MetricKind.HISTOGRAM:
            assert definition.name.endswith(UNITS), definition.name


def test_only_histograms_have_buckets_and_theirs_ascend() -> None:
    for definition in DEFINITIONS:
        assert bool(definition.buckets) is (definition.kind is MetricKind.HISTOGRAM)
        assert list(definition.buckets) == sorted(set(definition.buckets))
