from random import Random

import pytest

from gateway.scheduling.build import build_scheduler
from gateway.scheduling.events import (
    BackendDraining,
    BackendJoined,
    FirstTokenReceived,
    RequestArrived,
    ResponseProgressed,
    SchedulerEvent,
)
from gateway.scheduling.model import (
    CRITICAL,
    NON_CRITICAL,
    BackendId,
    BackendLoad,
    LatencyObjective,
    RequestId,
    TokenUsage,
)
from gateway.scheduling.snapshot import (
    Explanation,
    ForecastQuality,
    QueueSnapshot,
    ServiceSnapshot,
)
from tests.builders import make_policy, make_request, make_service, serving
from tests.scheduling.checked_scheduler import CheckedScheduler


def test_a_snapshot_shows_servers_queues_and_totals() -> None:
    checked = CheckedScheduler(make_policy(make_service("chat", priority=CRITICAL), slots=1))
    checked.join("a", "lora-a")
    checked.arrive(make_request("r1", model="lora-a", prompt_tokens=60, max_tokens=40))
    checked.arrive(make_request("r2", service="chat", body_bytes=700))
    checked.report("a", BackendLoad(running=1, waiting=2, kv_usage=0.25, max_loras=4))
    checked.now += 3.0
    snapshot = checked.scheduler.snapshot(now=checked.now)
    assert (snapshot.pool, snapshot.draining, snapshot.ignored_events) == ("pool", False, 0)
    assert (snapshot.tracked_requests, snapshot.queued_requests) == (2, 1)
    assert snapshot.queued_bytes == 700
    assert snapshot.queues == (QueueSnapshot(priority=CRITICAL, service="chat", requests=1),)
    (backend,) = snapshot.backends
    assert (backend.usable, backend.draining, backend.full) == (True, False, True)
    assert (backend.requests, backend.sequences, backend.decoding) == (1, 1, 0)
    assert (backend.pending_prefill_tokens, backend.kv_reserved_tokens) == (60, 100)
    assert (backend.active_adapters, backend.resident_adapters) == ({"lora-a": 1}, ("lora-a",))
    assert (backend.max_loras, backend.reported_running, backend.reported_waiting) == (4, 1, 2)
    assert (backend.reported_kv_usage, backend.report_age_s) == (0.25, 3.0)


def test_a_server_without_reports_has_no_age() -> None:
    checked = CheckedScheduler(make_policy())
    checked.join("a")
    (backend,) = checked.scheduler.snapshot(now=checked.now).backends
    assert backend.report_age_s is None
    assert backend.reported_running is None
    assert not backend.full


def test_the_states_of_servers_and_gateway_show() -> None:
    checked = CheckedScheduler(make_policy())
    checked.join("a")
    checked.join("b")
    checked.drain("a")
    checked.leave("b")
    checked.start_shutdown()
    snapshot = checked.scheduler.snapshot(now=checked.now)
    assert [(b.usable, b.draining) for b in snapshot.backends] == [(True, True), (False, False)]
    assert snapshot.draining


# -- services ---------------------------------------------------------------------------------

TTFT_OF_ONE_SECOND = LatencyObjective(ttft_s=1.0, percentile=0.9)


def one_server_for_chat() -> CheckedScheduler:
    chat = make_service("chat", priority=CRITICAL, objective=TTFT_OF_ONE_SECOND)
    checked = CheckedScheduler(make_policy(chat, accept_unregistered_models=False))
    checked.join("a")
    return checked


def only_service(checked: CheckedScheduler) -> ServiceSnapshot:
    (service,) = checked.scheduler.snapshot(now=checked.now).services
    return service


def serve(checked: CheckedScheduler, request_id: str, *, ttft_s: float) -> None:
    checked.arrive(make_request(request_id, service="chat"))
    checked.now += ttft_s
    checked.first_token(request_id)
    checked.finish(request_id, TokenUsage(100, 1))


def test_a_service_that_saw_nothing_is_exactly_at_its_target() -> None:
    assert only_service(one_server_for_chat()) == ServiceSnapshot(
        service="chat",
        priority=CRITICAL,
        objective=LatencyObjective(ttft_s=1.0, percentile=0.9),
        target=0.9,
        attainment=None,
        ended=0,
        missed=0,
        judged_total=0,
        missed_total=0,
        in_flight=0,
        expected_misses=0.0,
        burn=1.0,
    )


def test_a_service_shows_what_met_its_objective_and_what_missed_it() -> None:
    checked = one_server_for_chat()
    for request_id, ttft_s in (("r1", 0.1), ("r2", 3.0), ("r3", 0.1), ("r4", 0.1)):
        serve(checked, request_id, ttft_s=ttft_s)
    chat = only_service(checked)
    assert (chat.ended, chat.missed, chat.attainment) == (4, 1, 0.75)
    assert (chat.judged_total, chat.missed_total) == (4, 1)
    assert chat.burn == pytest.approx((1 + 20 * 0.1) / ((4 + 20) * 0.1))


def test_a_request_without_an_outcome_counts_with_its_chance_to_miss() -> None:
    checked = one_server_for_chat()
    checked.arrive(make_request("r1", service="chat", prompt_tokens=8_000))
    chat = only_service(checked)
    assert (chat.ended, chat.in_flight) == (0, 1)
    assert 0.0 < chat.expected_misses < 0.1
    checked.cancel("r1")
    chat = only_service(checked)
    assert (chat.in_flight, chat.expected_misses) == (0, 0.0)


def test_what_is_older_than_the_window_no_longer_shows() -> None:
    checked = one_server_for_chat()
    serve(checked, "r1", ttft_s=3.0)
    checked.now += 301.0
    assert only_service(checked).attainment is None


def test_requests_without_a_service_show_as_the_default_one() -> None:
    checked = CheckedScheduler(make_policy(make_service("chat", priority=CRITICAL)))
    shown = checked.scheduler.snapshot(now=checked.now).services
    assert [(s.service, s.priority, s.target) for s in shown] == [
        ("chat", CRITICAL, None),
        ("default", NON_CRITICAL, None),
    ]


# -- forecasts --------------------------------------------------------------------------------


def test_a_server_without_outcomes_has_no_forecast_error() -> None:
    checked = CheckedScheduler(make_policy())
    checked.join("a")
    (backend,) = checked.scheduler.snapshot(now=checked.now).backends
    assert backend.ttft_forecasts == backend.tpot_forecasts == ForecastQuality()
    assert backend.step_costs is None


def test_a_server_shows_how_far_its_forecasts_were_off() -> None:
    checked = CheckedScheduler(make_policy())
    checked.join("a")
    checked.arrive(make_request("r1"))
    explanation = checked.scheduler.explain(RequestId("r1"))
    assert explanation is not None
    checked.now += 2 * explanation.forecast.ttft_p90_s
    checked.first_token("r1")
    (backend,) = checked.scheduler.snapshot(now=checked.now).backends
    actual_s = 2 * explanation.forecast.ttft_p90_s
    assert (backend.ttft_forecasts.samples, backend.ttft_forecasts.p90_coverage) == (1, 0.0)
    assert backend.ttft_forecasts.relative_error == pytest.approx(
        1 - explanation.forecast.ttft_s / actual_s
    )
    assert backend.tpot_forecasts.samples == 0
    checked.now += 49 * explanation.forecast.tpot_s
    checked.finish("r1", TokenUsage(100, 50))
    (backend,) = checked.scheduler.snapshot(now=checked.now).backends
    assert backend.tpot_forecasts.samples == 1
    assert backend.tpot_forecasts.relative_error == pytest.approx(0.0, abs=1e-9)
    assert backend.tpot_forecasts.p90_coverage == 1.0


def test_a_server_shows_what_its_steps_are_believed_to_cost() -> None:
    checked = CheckedScheduler(make_policy())
    checked.join("a")
    checked.arrive(make_request("r1"))
    (backend,) = checked.scheduler.snapshot(now=checked.now).backends
    assert backend.step_costs is not None
    assert (backend.step_costs.step_s, backend.step_costs.per_prefill_token_s) == (0.012, 40e-6)


def test_looking_at_a_server_does_not_change_what_is_forecast_for_it_later() -> None:
    assert _second_servers_first_forecast(looks=True) == _second_servers_first_forecast(looks=False)


def _second_servers_first_forecast(*, looks: bool) -> Explanation:
    """Server b joins while nothing is known, and is compared when server a's speed is."""
    scheduler = build_scheduler(make_policy(), Random(1))
    now = 10.0

    def feed(event: SchedulerEvent) -> None:
        scheduler.handle(event, now=now)
        if looks:
            scheduler.snapshot(now=now)

    a, b, first = BackendId("a"), BackendId("b"), RequestId("r1")
    feed(BackendJoined(b, serving()))
    feed(BackendDraining(b))
    feed(BackendJoined(a, serving()))
    feed(RequestArrived(make_request("r1")))
    feed(FirstTokenReceived(first))
    for report in range(1, 40):
        now += 0.25
        feed(ResponseProgressed(a, ((first, 5 * report),), now))
    feed(BackendJoined(b, serving()))
    feed(RequestArrived(make_request("r2")))
    explanation = scheduler.explain(RequestId("r2"))
    assert explanation is not None
    return explanation
