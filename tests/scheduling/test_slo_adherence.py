from unittest.mock import ANY

import pytest

from gateway.scheduling.decisions import RefusalReason, Reject
from gateway.scheduling.model import (
    CRITICAL,
    LatencyObjective,
    LLMService,
    RequestId,
    TokenUsage,
)
from gateway.scheduling.policy import FairnessPolicy, QueuePolicy
from gateway.scheduling.slo_adherence import SloAdherence, error_budget
from gateway.scheduling.snapshot import ServiceSnapshot
from tests.builders import make_policy, make_request, make_service, make_tracked
from tests.scheduling.checked_scheduler import CheckedScheduler

OBJECTIVE = LatencyObjective(ttft_s=1.0, percentile=0.95)
CHAT = make_service("chat", priority=CRITICAL, objective=OBJECTIVE)


def adherence_of(
    *, met: int = 0, missed: int = 0, now: float = 0.0, of: LLMService = CHAT
) -> SloAdherence:
    adherence = SloAdherence(policy=FairnessPolicy())
    for number in range(met + missed):
        adherence.settle(make_tracked(service=of), missed=number < missed, now=now)
    return adherence


# -- burn -------------------------------------------------------------------------------------


def test_a_new_service_starts_at_its_target() -> None:
    assert adherence_of().burn(CHAT, now=0.0) == pytest.approx(1.0)


def test_at_its_target_a_service_burns_one() -> None:
    assert adherence_of(met=95, missed=5).burn(CHAT, now=0.0) == pytest.approx(1.0)


def test_burn_is_the_share_of_misses_over_the_error_budget_with_twenty_neutral_requests() -> None:
    burn = adherence_of(met=70, missed=30).burn(CHAT, now=0.0)
    assert burn == pytest.approx((30 + 20 * 0.05) / ((100 + 20) * 0.05))


def test_the_first_miss_of_a_new_service_weighs_little() -> None:
    assert 1.0 < adherence_of(missed=1).burn(CHAT, now=0.0) < 2.0


def test_burn_is_multiplied_by_the_weight() -> None:
    heavy = make_service("chat", objective=OBJECTIVE, fairness_weight=2.0)
    adherence = adherence_of(met=70, missed=30)
    assert adherence.burn(heavy, now=0.0) == pytest.approx(2 * adherence.burn(CHAT, now=0.0))


@pytest.mark.parametrize(
    ("objective", "budget"),
    [
        (None, 0.05),
        (OBJECTIVE, 0.05),
        (LatencyObjective(ttft_s=1.0, percentile=0.9), 0.1),
        (LatencyObjective(ttft_s=1.0, percentile=0.99999), 0.001),
    ],
)
def test_the_error_budget_is_what_the_target_leaves(
    objective: LatencyObjective | None, budget: float
) -> None:
    assert error_budget(make_service(objective=objective)) == pytest.approx(budget)


# -- the window -------------------------------------------------------------------------------


def test_after_five_minutes_a_miss_is_forgotten() -> None:
    adherence = adherence_of(missed=10, now=0.0)
    before = adherence.burn(CHAT, now=0.0)
    assert adherence.burn(CHAT, now=299.9) == before
    assert adherence.burn(CHAT, now=300.0) == pytest.approx(1.0)
    assert adherence.of(CHAT.name).all_missed == 0


def test_outcomes_leave_the_window_one_after_the_other() -> None:
    adherence = adherence_of(missed=3, now=0.0)
    for _ in range(4):
        adherence.settle(make_tracked(service=CHAT), missed=False, now=100.0)
    found = adherence.of(CHAT.name)
    assert (found.ended, found.missed) == (7, 3)
    found.forget_old(300.0)
    assert (found.ended, found.missed) == (4, 0)
    found.forget_old(400.0)
    assert (found.ended, found.missed, found.all_ended, found.all_missed) == (0, 0, 0, 0)


def test_the_length_of_the_window_is_configurable() -> None:
    adherence = SloAdherence(policy=FairnessPolicy(window_s=60.0))
    adherence.settle(make_tracked(service=CHAT), missed=True, now=0.0)
    assert adherence.burn(CHAT, now=59.9) > 1.0
    assert adherence.burn(CHAT, now=60.0) == pytest.approx(1.0)


@pytest.mark.parametrize("window_s", [60.0, 600.0])
def test_a_window_of_another_length_keeps_what_is_young_enough(window_s: float) -> None:
    adherence = adherence_of(missed=3, now=100.0)
    for second in (250.0, 251.0, 256.0, 290.0):
        adherence.settle(make_tracked(service=CHAT), missed=False, now=second)
    adherence.reconfigure(FairnessPolicy(window_s=window_s), now=300.0)
    found = adherence.of(CHAT.name)
    assert (found.ended, found.missed) == ((4, 0) if window_s == 60.0 else (7, 3))
    found.forget_old(349.0 if window_s == 60.0 else 889.0)
    assert (found.ended, found.all_ended) == (1, 1)


# -- one request ------------------------------------------------------------------------------


def test_a_request_is_counted_once_whatever_becomes_of_it_later() -> None:
    adherence, tracked = adherence_of(), make_tracked(service=CHAT)
    adherence.settle(tracked, missed=True, now=0.0)
    adherence.settle(tracked, missed=False, now=1.0)
    adherence.settle(tracked, missed=True, now=2.0)
    found = adherence.of(CHAT.name)
    assert (found.ended, found.missed) == (1, 1)


def test_in_flight_a_request_counts_with_its_probability_to_miss() -> None:
    adherence, tracked = adherence_of(), make_tracked(service=CHAT)
    adherence.dispatched(tracked, 0.5)
    assert adherence.burn(CHAT, now=0.0) == pytest.approx((0.5 + 1.0) / (21 * 0.05))
    adherence.settle(tracked, missed=False, now=0.0)
    assert adherence.burn(CHAT, now=0.0) == pytest.approx(1.0 / (21 * 0.05))


def test_a_request_that_returns_to_the_queue_is_no_longer_charged() -> None:
    adherence, tracked = adherence_of(), make_tracked(service=CHAT)
    adherence.dispatched(tracked, 0.5)
    adherence.withdrawn(tracked)
    adherence.withdrawn(tracked)
    found = adherence.of(CHAT.name)
    assert (found.in_flight, found.expected_misses) == (0, 0.0)
    assert adherence.burn(CHAT, now=0.0) == pytest.approx(1.0)


def test_a_request_that_missed_in_the_queue_is_not_charged_again_at_dispatch() -> None:
    adherence, tracked = adherence_of(), make_tracked(service=CHAT)
    adherence.settle(tracked, missed=True, now=0.0)
    adherence.dispatched(tracked, 1.0)
    found = adherence.of(CHAT.name)
    assert (found.in_flight, found.expected_misses, found.missed) == (0, 0.0, 1)


def test_what_does_not_burn_is_reported_all_the_same() -> None:
    adherence = adherence_of(met=1)
    adherence.settle(make_tracked(service=CHAT), missed=True, burns=False, now=0.0)
    found = adherence.of(CHAT.name)
    assert (found.ended, found.missed) == (1, 0)
    assert (found.all_ended, found.all_missed) == (2, 1)


def test_services_do_not_share_outcomes() -> None:
    adherence = adherence_of(missed=5)
    other = make_service("other", objective=OBJECTIVE)
    assert adherence.burn(other, now=0.0) == pytest.approx(1.0)
    assert adherence.services() == ("chat", "other")


# -- what counts as a miss, by a whole scheduler ----------------------------------------------


def busy_pool(service: LLMService, *, slots: int = 1) -> CheckedScheduler:
    checked = CheckedScheduler(make_policy(service, slots=slots))
    checked.join("a")
    checked.arrive(make_request("r1", service=service.name))
    return checked


def seen(checked: CheckedScheduler) -> ServiceSnapshot:
    services = checked.scheduler.snapshot(now=checked.now).services
    return next(found for found in services if found.service == "chat")


def test_an_answer_in_time_meets_the_objective() -> None:
    checked = busy_pool(CHAT)
    assert seen(checked).in_flight == 1
    checked.now += 0.5
    checked.first_token("r1")
    checked.finish("r1", TokenUsage(100, 50, None, 50))
    found = seen(checked)
    assert (found.ended, found.missed, found.in_flight, found.attainment) == (1, 0, 0, 1.0)


def test_a_late_first_token_is_a_miss_at_once() -> None:
    checked = busy_pool(CHAT)
    checked.now += 1.5
    checked.first_token("r1")
    found = seen(checked)
    assert (found.ended, found.missed, found.in_flight) == (1, 1, 0)
    checked.finish("r1", TokenUsage(100, 50, None, 50))
    assert seen(checked).ended == 1


def test_the_time_in_the_queue_counts_for_the_first_token() -> None:
    checked = busy_pool(CHAT)
    checked.arrive(make_request("r2", service="chat"))
    checked.now += 0.6
    checked.finish("r1", TokenUsage(100, 50, None, 50))
    assert checked.backend_of("r2") == "a"
    checked.now += 0.6
    checked.first_token("r2")
    assert (seen(checked).ended, seen(checked).missed) == (2, 1)


def test_slow_tokens_are_a_miss_at_the_end() -> None:
    service = make_service(
        "chat", priority=CRITICAL, objective=LatencyObjective(ttft_s=1.0, tpot_s=0.05)
    )
    checked = busy_pool(service)
    checked.now += 0.5
    checked.first_token("r1")
    checked.now += 10.0
    checked.finish("r1", TokenUsage(100, 50, None, 50))
    assert (seen(checked).ended, seen(checked).missed) == (1, 1)


def test_a_request_misses_in_the_queue_once_no_server_could_answer_in_time() -> None:
    checked = busy_pool(CHAT)
    checked.arrive(make_request("r2", service="chat"))
    checked.pass_deadline()
    assert checked.now < 1_001.0
    assert (seen(checked).ended, seen(checked).missed) == (1, 1)
    assert checked.ids_in("queued") == ["r2"]


def test_a_request_that_may_not_wait_and_is_refused_is_a_miss() -> None:
    checked = CheckedScheduler(make_policy(CHAT, queue=QueuePolicy(timeout_s=0.0)))
    (refusal,) = checked.arrive(make_request("r1", service="chat"))
    assert refusal == Reject(RequestId("r1"), RefusalReason.NO_BACKEND, ANY)
    assert (seen(checked).judged_total, seen(checked).missed_total) == (1, 1)


def test_without_an_objective_what_was_served_has_met_it() -> None:
    checked = busy_pool(make_service("chat", priority=CRITICAL))
    checked.now += 100.0
    checked.finish("r1", TokenUsage(100, 50, None, 50))
    found = seen(checked)
    assert (found.target, found.attainment) == (None, 1.0)


@pytest.mark.parametrize("ending", ["left", "refused by the engine"])
def test_who_leaves_in_time_or_asks_what_the_engine_refuses_has_no_outcome(ending: str) -> None:
    checked = busy_pool(CHAT)
    if ending == "left":
        checked.cancel("r1")
    else:
        checked.finish("r1", ok=False)
    found = seen(checked)
    assert (found.ended, found.in_flight, found.expected_misses) == (0, 0, 0.0)
