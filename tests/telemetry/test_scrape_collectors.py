from random import Random

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from gateway.scheduling.build import build_scheduler
from gateway.scheduling.events import (
    BackendDraining,
    BackendJoined,
    BackendLoadReported,
    DrainStarted,
    FirstTokenReceived,
    RequestArrived,
    RequestCancelled,
    ResponseFinished,
    SchedulerEvent,
)
from gateway.scheduling.model import (
    BackendId,
    BackendLoad,
    LatencyObjective,
    RequestId,
    TokenUsage,
)
from gateway.scheduling.policy import SchedulingPolicy
from gateway.telemetry.scrape_collectors import LostLinesCollector, SchedulerCollector
from tests.builders import make_policy, make_request, make_service, serving

A = BackendId("a")
SERVER = {"pool": "pool", "backend": "a"}


POLICY = make_policy(
    make_service("chat", priority=0),
    make_service("lora-a", targets=[("lora-a", 1)]),
    slots=2,
    max_loras=4,
)


def page_after(
    *events: SchedulerEvent, policy: SchedulingPolicy = POLICY, step_s: float = 0.0
) -> CollectorRegistry:
    """The metrics of a pool at time 10, its only server having joined at 8 and seen the events.

    Between two events pass `step_s` seconds.
    """
    scheduler = build_scheduler(policy, Random(1))
    scheduler.handle(BackendJoined(A, serving("lora-a", "lora-b")), now=8.0)
    now = 8.0
    for event in events:
        scheduler.handle(event, now=now)
        now += step_s
    registry = CollectorRegistry()
    registry.register(SchedulerCollector([lambda: scheduler.snapshot(now=max(now, 10.0))]))
    return registry


def value(registry: CollectorRegistry, name: str, labels: dict[str, str]) -> float | None:
    return registry.get_sample_value(f"llm_gateway_{name}", labels)


def arrivals(number: int, *, service: str = "chat") -> list[RequestArrived]:
    return [RequestArrived(make_request(f"{service}{n}", service=service)) for n in range(number)]


def test_a_server_shows_what_is_at_it() -> None:
    page = page_after(*arrivals(1), *arrivals(1, service="lora-a"))
    assert value(page, "backend_requests_in_flight", SERVER) == 2
    assert value(page, "backend_adapters_active", SERVER) == 1
    assert value(page, "backend_adapters_resident", SERVER) == 1
    assert value(page, "backend_adapter_slots", SERVER) == 4
    assert value(page, "backend_pending_prefill_tokens", SERVER) == 200
    assert value(page, "backend_kv_reserved_tokens", SERVER) == 300
    assert value(page, "backend_full", SERVER) == 1
    assert value(page, "backend_usable", SERVER) == 1


def test_a_draining_server_is_not_usable() -> None:
    assert value(page_after(BackendDraining(A)), "backend_usable", SERVER) == 0


def test_a_report_shows_with_its_age() -> None:
    load = BackendLoad(running=10, waiting=3, kv_usage=0.25)
    page = page_after(BackendLoadReported(A, load, taken_at=7.5))
    assert value(page, "backend_metrics_age_seconds", SERVER) == 2.5
    assert value(page, "backend_waiting_requests", SERVER) == 3
    assert value(page, "backend_kv_usage_ratio", SERVER) == 0.25
    assert value(page, "backend_external_sequences", SERVER) == pytest.approx(0.3 * 13)


def test_what_a_server_has_not_reported_is_left_out() -> None:
    page = generate_latest(page_after()).decode()
    assert "llm_gateway_backend_metrics_age_seconds{" not in page
    assert "llm_gateway_backend_kv_usage_ratio{" not in page
    assert "llm_gateway_backend_usable{" in page


def test_a_server_with_room_is_not_full() -> None:
    assert value(page_after(*arrivals(1)), "backend_full", SERVER) == 0


def test_the_queue_shows_its_depth_per_service() -> None:
    page = page_after(*arrivals(5), *arrivals(3, service="lora-a"))
    chat = {"pool": "pool", "service": "chat", "priority": "0"}
    adapter = {"pool": "pool", "service": "lora-a", "priority": "-1"}
    assert value(page, "queue_requests", chat) == 3
    assert value(page, "queue_requests", adapter) == 3
    assert value(page, "queue_bytes", {"pool": "pool"}) == 3_000
    assert value(page, "tracked_requests", {"pool": "pool"}) == 8


def test_draining_and_ignored_events_show() -> None:
    page = page_after(RequestCancelled(RequestId("unheard of")), DrainStarted())
    assert value(page, "draining", {"pool": "pool"}) == 1
    assert value(page, "ignored_events_total", {"pool": "pool"}) == 1


def test_a_scrape_takes_a_fresh_snapshot() -> None:
    scheduler = build_scheduler(make_policy(), Random(1))
    registry = CollectorRegistry()
    registry.register(SchedulerCollector([lambda: scheduler.snapshot(now=1.0)]))
    assert value(registry, "backend_usable", SERVER) is None
    scheduler.handle(BackendJoined(A, serving()), now=1.0)
    assert value(registry, "backend_usable", SERVER) == 1


CHAT = {"pool": "pool", "service": "chat", "priority": "0"}
FIRST_TOKEN = FirstTokenReceived(RequestId("chat0"))
FINISHED = ResponseFinished(RequestId("chat0"), TokenUsage(100, 50))


def test_a_service_shows_how_it_fares() -> None:
    page = page_after(*arrivals(1), FINISHED, *arrivals(1, service="lora-a"))
    assert value(page, "service_attainment_ratio", CHAT) == 1.0
    assert value(page, "service_burn", CHAT) == pytest.approx(20 / 21)
    assert value(page, "service_in_flight", CHAT) == 0
    adapter = CHAT | {"service": "lora-a", "priority": "-1"}
    assert value(page, "service_attainment_ratio", adapter) is None
    assert value(page, "service_in_flight", adapter) == 1
    assert value(page, "service_burn", CHAT | {"service": "default", "priority": "-1"}) == 1.0


def test_a_miss_that_may_come_shows_as_a_part_of_one() -> None:
    tight = LatencyObjective(ttft_s=0.025)  # the forecast for an idle server is .021
    policy = make_policy(make_service("chat", priority=0, objective=tight))
    page = page_after(*arrivals(1), policy=policy)
    assert value(page, "service_in_flight", CHAT) == 1
    assert value(page, "service_expected_misses", CHAT) == pytest.approx(0.28, abs=0.02)


def test_a_server_shows_how_good_its_forecasts_are() -> None:
    unknown = page_after(*arrivals(1))
    assert value(unknown, "backend_ttft_forecast_error_ratio", SERVER) is None
    assert value(unknown, "backend_ttft_p90_coverage_ratio", SERVER) is None
    assert value(unknown, "backend_ttft_forecast_samples_total", SERVER) == 0
    page = page_after(*arrivals(1), FIRST_TOKEN, FINISHED, step_s=2.0)
    for time in ("ttft", "tpot"):
        assert value(page, f"backend_{time}_forecast_samples_total", SERVER) == 1
        assert value(page, f"backend_{time}_p90_coverage_ratio", SERVER) == 0.0
    forecast_ttft_s = 0.005 + 0.012 + 100 * 40e-6
    ttft_error = value(page, "backend_ttft_forecast_error_ratio", SERVER)
    assert ttft_error == pytest.approx(1 - forecast_ttft_s / 2.0)
    tpot_error = value(page, "backend_tpot_forecast_error_ratio", SERVER)
    assert tpot_error == pytest.approx(1 - 0.012 / (2.0 / 49), abs=0.02)


def test_lost_lines_show_per_output() -> None:
    registry = CollectorRegistry()
    registry.register(LostLinesCollector({"journal": lambda: 3, "request_log": lambda: 0}))
    assert value(registry, "lost_lines_total", {"output": "journal"}) == 3
    assert value(registry, "lost_lines_total", {"output": "request_log"}) == 0
