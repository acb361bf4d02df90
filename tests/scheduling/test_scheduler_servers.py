"""Servers that come and go, policies that change, and what can be seen from outside.

CheckedScheduler makes sure after each event of these tests too that the contract holds.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from random import Random

import pytest

from gateway.scheduling import events as ev
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.capacity import ClosedReason, OpenServer
from gateway.scheduling.decisions import Dispatch, RefusalReason
from gateway.scheduling.events import FailureKind
from gateway.scheduling.model import (
    CRITICAL,
    BackendId,
    BackendLoad,
    Forecast,
    LatencyObjective,
    RequestId,
)
from gateway.scheduling.policy import (
    CapacityPolicy,
    FairnessPolicy,
    QueuePolicy,
    RetryPolicy,
)
from gateway.scheduling.tracked_request import TrackedRequest
from tests.builders import make_policy, make_request, make_service, serving
from tests.scheduling.checked_scheduler import CheckedScheduler
from tests.scheduling.invariants import assert_everything_is_released
from tests.scheduling.scheduler_scenes import BATCH, CHAT, dispatched, refused, scheduler_of

SHORT = make_service("short", objective=LatencyObjective(ttft_s=1.0), priority=CRITICAL)


class TestServers:
    def test_a_draining_server_finishes_but_gets_nothing_new(self) -> None:
        checked = scheduler_of("a")
        checked.arrive(make_request("r1", service="chat"))
        checked.drain("a")
        assert checked.arrive(make_request("r2", service="chat")) == []
        assert checked.finish("r1") == []
        assert dispatched(checked.join("a")) == [("r2", "a")]

    def test_servers_that_never_joined_may_drain_leave_and_report(self) -> None:
        checked = scheduler_of()
        assert checked.drain("ghost") == []
        assert checked.leave("ghost") == []
        assert checked.report("ghost", BackendLoad()) == []
        assert checked.scheduler.snapshot(now=checked.now).ignored_events == 3

    def test_who_waited_in_vain_for_a_server_is_told_that_there_is_none(self) -> None:
        checked = scheduler_of()
        checked.arrive(make_request("r1", service="chat"))
        assert refused(checked.pass_deadline()) == [("Evict", "r1", RefusalReason.NO_BACKEND)]

    def test_who_would_not_wait_for_a_server_is_told_at_once_that_there_is_none(self) -> None:
        checked = CheckedScheduler(make_policy(make_service("hasty", max_queue_wait_s=0.0)))
        decisions = checked.arrive(make_request("r1", service="hasty"))
        assert refused(decisions) == [("Reject", "r1", RefusalReason.NO_BACKEND)]

    def test_a_server_that_gains_an_adapter_gets_who_waits_for_it(self) -> None:
        checked = CheckedScheduler(make_policy())
        checked.join("a", "lora-a")
        checked.join("b", "lora-b")
        checked.leave("b")
        assert checked.arrive(make_request("r1", model="lora-b")) == []
        assert dispatched(checked.join("a", "lora-a", "lora-b")) == [("r1", "a")]

    def test_requests_end_well_on_a_server_that_left_and_came_back(self) -> None:
        checked = scheduler_of("a", slots=2)
        checked.arrive(make_request("r1", model="lora-a"))
        checked.arrive(make_request("r2", model="lora-a"))
        checked.leave("a")
        checked.finish("r1")
        checked.join("a", "lora-a")
        checked.cancel("r2")
        assert_everything_is_released(checked.scheduler)

    def test_a_server_with_a_queue_of_its_own_gets_nothing_until_it_has_drained(self) -> None:
        checked = scheduler_of("a", slots=8)
        checked.report("a", BackendLoad(running=4, waiting=9))
        assert checked.arrive(make_request("r1")) == []
        assert dispatched(checked.report("a", BackendLoad(running=4, waiting=0))) == [("r1", "a")]

    def test_answers_that_are_not_streamed_progress_with_the_reports(self) -> None:
        checked = scheduler_of("a")
        checked.arrive(make_request("r1", streamed=False, prompt_tokens=100))
        checked.now += 10.0
        checked.report("a", BackendLoad())
        (backend,) = checked.scheduler.snapshot(now=checked.now).backends
        assert backend.pending_prefill_tokens == 0
        assert backend.decoding == 1


class TestPolicies:
    def test_a_higher_limit_lets_the_waiting_go(self) -> None:
        checked = scheduler_of("a")
        for number in range(3):
            checked.arrive(make_request(f"r{number}", service="chat"))
        decisions = checked.feed(ev.PoliciesChanged(make_policy(CHAT, slots=2)))
        assert dispatched(decisions) == [("r1", "a")]

    def test_requests_keep_the_service_they_were_admitted_under(self) -> None:
        checked = scheduler_of("a")
        checked.arrive(make_request("r1", service="chat"))
        checked.arrive(make_request("r2", service="chat"))
        checked.feed(ev.PoliciesChanged(make_policy(BATCH, slots=1)))
        decisions = checked.arrive(make_request("r3", service="chat"))
        assert refused(decisions) == [("Reject", "r3", RefusalReason.UNKNOWN_MODEL)]
        assert dispatched(checked.finish("r1")) == [("r2", "a")]

    def test_new_queue_limits_hold(self) -> None:
        checked = scheduler_of("a")
        checked.arrive(make_request("r1", service="chat"))
        checked.arrive(make_request("r2", service="chat"))
        changed = make_policy(CHAT, slots=1, queue=QueuePolicy(max_requests=1))
        checked.feed(ev.PoliciesChanged(changed))
        decisions = checked.arrive(make_request("r3", service="chat"))
        assert refused(decisions) == [("Reject", "r3", RefusalReason.QUEUE_FULL)]

    def test_new_adapter_slots_hold_for_servers_that_have_not_told_theirs(self) -> None:
        checked = scheduler_of("a", "c")
        checked.report("c", BackendLoad(max_loras=2))
        checked.feed(ev.PoliciesChanged(make_policy(max_loras=3)))
        checked.join("b")
        slots = {b.backend_id: b.max_loras for b in checked.snapshot().backends}
        assert slots == {"a": 3, "b": 3, "c": 2}

    def test_a_new_window_and_neutral_start_change_what_services_burn(self) -> None:
        checked = scheduler_of("a", services=[SHORT])
        for number in range(4):
            checked.arrive(make_request(f"r{number}", service="short"))
        checked.now += 10.0
        checked.feed(ev.DeadlinePassed())
        assert checked.snapshot().services[0].missed == 3
        policy = make_policy(SHORT, slots=1)
        changed = replace(policy, fairness=FairnessPolicy(window_s=60.0, neutral_requests=1))
        burnt_before = checked.snapshot().services[0].burn
        checked.feed(ev.PoliciesChanged(changed))
        assert checked.snapshot().services[0].burn > 2 * burnt_before
        checked.now += 70.0
        assert checked.snapshot().services[0].missed == 0

    def test_a_new_size_of_steps_holds_for_servers_that_have_not_shown_theirs(self) -> None:
        checked = scheduler_of("a", "b", slots=8)
        checked.report("b", BackendLoad(largest_step_tokens=4096))
        policy = make_policy(CHAT, slots=8)
        capacity = CapacityPolicy(max_requests_per_backend=8, chunk_budget_tokens=256)
        checked.feed(ev.PoliciesChanged(replace(policy, capacity=capacity)))
        for number in range(4):  # each is worth two steps of 256, so that one fills a server
            request = make_request(f"r{number}", service="chat", prompt_tokens=512)
            checked.arrive(request)
        places = {request_id: checked.backend_of(request_id) for request_id in checked.lives}
        assert Counter(places.values()) == {"a": 1, "b": 3}

    def test_what_retries_are_left_and_who_was_served_is_kept_where_it_still_holds(self) -> None:
        retry = RetryPolicy(budget_burst=1.0, budget_ratio=0.0)
        checked = scheduler_of("a", "b", retry=retry)
        checked.arrive(make_request("r1"))
        assert len(dispatched(checked.fail("r1", FailureKind.OVERLOADED))) == 1
        checked.feed(ev.PoliciesChanged(make_policy(CHAT, BATCH, slots=1, retry=retry)))
        decisions = checked.fail("r1", FailureKind.OVERLOADED)
        assert refused(decisions) == [("Evict", "r1", RefusalReason.ATTEMPTS_EXHAUSTED)]


class TestForecasts:
    @staticmethod
    def forecast(checked: CheckedScheduler, request_id: str, prompt_tokens: int = 100) -> Forecast:
        (dispatch,) = checked.arrive(make_request(request_id, prompt_tokens=prompt_tokens))
        assert isinstance(dispatch, Dispatch)
        return dispatch.forecast

    def test_they_grow_with_what_is_in_flight(self) -> None:
        checked = scheduler_of("a", slots=100)
        first = self.forecast(checked, "first")
        for number in range(30):
            checked.arrive(make_request(f"r{number}"))
            checked.first_token(f"r{number}")
        later = self.forecast(checked, "later")
        assert later.ttft_s > first.ttft_s
        assert later.tpot_s > first.tpot_s

    def test_they_grow_with_the_prompt(self) -> None:
        short = self.forecast(scheduler_of("a"), "r1", prompt_tokens=10)
        long = self.forecast(scheduler_of("a"), "r1", prompt_tokens=9_000)
        assert long.ttft_s > short.ttft_s + 0.1
        assert long.tpot_s > short.tpot_s

    def test_an_adapter_that_has_to_be_loaded_delays_the_first_token(self) -> None:
        checked = scheduler_of("a")
        forecasts = []
        for request_id in ("cold", "warm"):
            (dispatch,) = checked.arrive(make_request(request_id, model="lora-a"))
            assert isinstance(dispatch, Dispatch)
            forecasts.append(dispatch.forecast)
            checked.finish(request_id)
        assert forecasts[0].ttft_s > forecasts[1].ttft_s
        assert forecasts[0].tpot_s == pytest.approx(forecasts[1].tpot_s, rel=0.01)


class TestLooks:
    def test_a_dispatch_is_explained(self) -> None:
        checked = scheduler_of("a", "b")
        checked.arrive(make_request("r1", model="lora-a", prompt_tokens=70, max_tokens=9))
        explanation = checked.scheduler.explain(RequestId("r1"))
        assert explanation is not None
        assert explanation.chosen == checked.backend_of("r1")
        assert explanation.adapter == "lora-a"
        assert (explanation.prompt_tokens, explanation.expected_output_tokens) == (70, 9)
        assert {c.backend_id for c in explanation.candidates} == {"a", "b"}

    def test_a_server_that_failed_before_is_told_as_tried(self) -> None:
        checked = scheduler_of("a", "b")
        checked.arrive(make_request("r1"))
        first = checked.backend_of("r1")
        checked.fail("r1", retryable=True)
        explanation = checked.scheduler.explain(RequestId("r1"))
        assert explanation is not None
        assert explanation.closed == ((first, ClosedReason.TRIED),)

    def test_a_full_server_is_told_as_full(self) -> None:
        checked = scheduler_of("a", "b", slots=1)
        checked.arrive(make_request("r1"))
        checked.arrive(make_request("r2"))
        explanation = checked.scheduler.explain(RequestId("r2"))
        assert explanation is not None
        assert explanation.closed == ((checked.backend_of("r1"), ClosedReason.FULL),)

    def test_of_many_servers_the_closed_ones_are_not_told_apart(self) -> None:
        checked = scheduler_of(*(f"s{number}" for number in range(13)), slots=1)
        checked.arrive(make_request("r1"))
        checked.arrive(make_request("r2"))
        explanation = checked.scheduler.explain(RequestId("r2"))
        assert explanation is not None
        assert {reason for _, reason in explanation.closed} == {ClosedReason.NOT_COMPARED}

    def test_who_waits_has_no_explanation_yet(self) -> None:
        checked = scheduler_of()
        checked.arrive(make_request("r1"))
        assert checked.scheduler.explain(RequestId("r1")) is None

    def test_a_snapshot_does_not_change_afterwards(self) -> None:
        checked = scheduler_of("a")
        before = checked.scheduler.snapshot(now=checked.now)
        checked.arrive(make_request("r1", model="lora-a"))
        assert before.tracked_requests == 0
        assert before.backends[0].active_adapters == {}


@pytest.mark.interpreted
@pytest.mark.parametrize("waiting", [1_000, 10_000])
def test_ten_thousand_that_wait_cost_each_event_no_more_than_a_thousand(
    monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    """Rule 7, by counting how often requests are compared with servers."""
    scheduler = build_scheduler(make_policy(CHAT, slots=1), Random(0))
    scheduler.handle(ev.BackendJoined(BackendId("a"), serving()), now=0.0)
    compared = 0
    capacity = scheduler._rules.capacity
    open_among = capacity.open_among

    def counting(
        tracked: TrackedRequest,
        backends: Iterable[BackendState],
        *,
        now: float,
        behind_late: bool,
    ) -> list[OpenServer]:
        nonlocal compared
        compared += 1
        return open_among(tracked, backends, now=now, behind_late=behind_late)

    monkeypatch.setattr(capacity, "open_among", counting)
    for number in range(waiting + 1):
        request = make_request(f"r{number}", service="chat")
        scheduler.handle(ev.RequestArrived(request), now=float(number) / waiting)
    for number in range(waiting, 0, -1):
        scheduler.handle(ev.RequestCancelled(RequestId(f"r{number}")), now=2.0)
    scheduler.handle(ev.RequestCancelled(RequestId("r0")), now=2.0)
    assert compared <= 4 * waiting
    assert_everything_is_released(scheduler)
