"""One behaviour of the scheduler at a time; the contract under any history is test_scheduler_rules.

CheckedScheduler makes sure after each event of these tests too that the contract holds.
"""

from collections.abc import Sequence
from random import Random

import pytest

from gateway.scheduling import events as ev
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision, Dispatch, RefusalReason
from gateway.scheduling.events import FailureKind
from gateway.scheduling.model import (
    CRITICAL,
    BackendId,
    BackendLoad,
    LLMService,
    RequestId,
    TokenUsage,
)
from gateway.scheduling.policy import QueuePolicy, RetryPolicy
from tests.builders import make_policy, make_request, make_service, serving
from tests.scheduling.checked_scheduler import CheckedScheduler
from tests.scheduling.invariants import assert_everything_is_released

CHAT = make_service("chat", priority=CRITICAL)
BATCH = make_service("batch")


def scheduler_of(
    *backends: str,
    slots: int = 1,
    services: Sequence[LLMService] = (CHAT, BATCH),
    queue: QueuePolicy | None = None,
    retry: RetryPolicy | None = None,
) -> CheckedScheduler:
    """Servers of two adapters with these names and so many places each."""
    checked = CheckedScheduler(make_policy(*services, slots=slots, queue=queue, retry=retry))
    for backend in backends:
        checked.join(backend, "lora-a", "lora-b")
    return checked


def dispatched(decisions: Sequence[Decision]) -> list[tuple[str, str]]:
    """(request, server) of decisions that are all dispatches."""
    found = [(d.request_id, d.backend_id) for d in decisions if isinstance(d, Dispatch)]
    assert len(found) == len(decisions), decisions
    return [(str(request_id), str(backend_id)) for request_id, backend_id in found]


def refused(decisions: Sequence[Decision]) -> list[tuple[str, str, RefusalReason]]:
    """(kind, request, reason) of decisions that are all refusals."""
    found = [
        (type(d).__name__, str(d.request_id), d.reason)
        for d in decisions
        if not isinstance(d, Dispatch)
    ]
    assert len(found) == len(decisions), decisions
    return found


class TestArrivals:
    def test_a_request_goes_to_an_open_server_at_once(self) -> None:
        checked = scheduler_of("a")
        (dispatch,) = checked.arrive(make_request("r1", service="chat"))
        assert isinstance(dispatch, Dispatch)
        assert (dispatch.request_id, dispatch.backend_id) == ("r1", "a")
        assert (dispatch.model, dispatch.attempt) == ("base", 1)
        assert dispatch.forecast.ttft_s > 0.0

    def test_a_request_waits_for_the_first_server_that_opens(self) -> None:
        checked = scheduler_of("a", "b")
        first = dispatched(checked.arrive(make_request("r1", service="chat")))[0][1]
        checked.arrive(make_request("r2", service="chat"))
        assert checked.arrive(make_request("r3", service="chat")) == []
        assert dispatched(checked.finish("r1")) == [("r3", first)]

    def test_an_unknown_service_is_refused(self) -> None:
        checked = scheduler_of("a")
        decisions = checked.arrive(make_request("r1", service="unheard-of"))
        assert refused(decisions) == [("Reject", "r1", RefusalReason.UNKNOWN_MODEL)]

    def test_a_model_that_no_server_knows_is_refused(self) -> None:
        checked = scheduler_of("a")
        decisions = checked.arrive(make_request("r1", model="nowhere"))
        assert refused(decisions) == [("Reject", "r1", RefusalReason.UNKNOWN_MODEL)]

    def test_a_model_of_a_server_that_is_away_is_waited_for(self) -> None:
        checked = scheduler_of("b")
        checked.join("a", "lora-x")
        checked.leave("a")
        assert checked.arrive(make_request("r1", model="lora-x")) == []
        assert dispatched(checked.join("a", "lora-x")) == [("r1", "a")]

    def test_without_servers_any_model_may_wait(self) -> None:
        checked = scheduler_of()
        assert checked.arrive(make_request("r1", model="lora-a")) == []
        assert dispatched(checked.join("a", "lora-a")) == [("r1", "a")]

    def test_an_id_in_use_is_ignored_and_counted(self) -> None:
        checked = scheduler_of("a")
        checked.arrive(make_request("r1"))
        assert checked.arrive(make_request("r1")) == []
        assert checked.scheduler.snapshot(now=checked.now).ignored_events == 1

    def test_an_id_may_be_used_again_after_its_end(self) -> None:
        checked = scheduler_of("a")
        checked.arrive(make_request("r1"))
        checked.finish("r1")
        assert dispatched(checked.arrive(make_request("r1"))) == [("r1", "a")]

    def test_a_small_request_does_not_pass_a_large_one_of_its_flow(self) -> None:
        checked = scheduler_of("a", slots=4)
        checked.arrive(make_request("r1", service="chat", choices=2))
        assert checked.arrive(make_request("large", service="chat", choices=3)) == []
        assert checked.arrive(make_request("small", service="chat")) == []
        assert dispatched(checked.finish("r1")) == [("large", "a"), ("small", "a")]


class TestOrder:
    def test_higher_priorities_go_first_whatever_the_arrival(self) -> None:
        vip = make_service("vip", priority=7)
        bulk = make_service("bulk", priority=-2)
        checked = scheduler_of("a", services=[CHAT, BATCH, vip, bulk])
        checked.arrive(make_request("running"))
        for name in ("bulk", "batch", "chat", "vip"):
            checked.arrive(make_request(name, service=name))
        served = []
        for done in ("running", "vip", "chat", "batch"):
            served += dispatched(checked.finish(done))
        assert [request for request, _ in served] == ["vip", "chat", "batch", "bulk"]

    def test_within_a_priority_the_first_come_is_first_served(self) -> None:
        other = make_service("other", priority=CRITICAL)
        checked = scheduler_of("a", services=[CHAT, other])
        checked.arrive(make_request("running", service="chat"))
        for number, service in enumerate(("other", "chat", "chat", "other")):
            checked.arrive(make_request(f"r{number}", service=service))
        served = []
        for done in ("running", "r0", "r1", "r2"):
            served += dispatched(checked.finish(done))
        assert [request for request, _ in served] == ["r0", "r1", "r2", "r3"]

    def test_a_head_that_waits_for_a_slot_does_not_hold_up_others(self) -> None:
        checked = scheduler_of("a", slots=8)
        checked.arrive(make_request("r1", model="lora-a"))
        assert checked.arrive(make_request("r2", model="lora-b")) == []
        assert dispatched(checked.arrive(make_request("r3", model="lora-a"))) == [("r3", "a")]
        assert checked.finish("r1") == []
        assert dispatched(checked.finish("r3")) == [("r2", "a")]

    def test_a_head_that_comes_up_is_offered_every_server(self) -> None:
        checked = scheduler_of("a", "b", slots=2)
        for number in range(2):  # one place is left on each server
            checked.arrive(make_request(f"r{number}", service="chat"))
        assert checked.arrive(make_request("pair", service="chat", choices=2)) == []
        assert checked.arrive(make_request("single", service="chat")) == []
        emptied, other = checked.backend_of("r0"), checked.backend_of("r1")
        assert dispatched(checked.finish("r0")) == [("pair", emptied), ("single", other)]

    def test_a_cancelled_head_lets_the_next_one_go(self) -> None:
        checked = scheduler_of("a", slots=2)
        checked.arrive(make_request("r1", service="chat"))
        checked.arrive(make_request("pair", service="chat", choices=2))
        checked.arrive(make_request("single", service="chat"))
        assert dispatched(checked.cancel("pair")) == [("single", "a")]

    def test_an_expired_head_lets_the_next_one_go(self) -> None:
        checked = scheduler_of("a", slots=2)
        checked.arrive(make_request("r1", service="chat"))
        checked.arrive(make_request("pair", service="chat", choices=2))
        checked.now += 1.0
        checked.arrive(make_request("single", service="chat"))
        eviction, dispatch = checked.pass_deadline()
        assert refused([eviction]) == [("Evict", "pair", RefusalReason.QUEUE_TIMEOUT)]
        assert dispatched([dispatch]) == [("single", "a")]


class TestWaiting:
    def test_nothing_is_due_while_nothing_waits(self) -> None:
        checked = scheduler_of("a")
        checked.arrive(make_request("r1", service="chat"))
        assert checked.scheduler.next_deadline() is None

    def test_the_wait_ends_at_the_queue_timeout(self) -> None:
        checked = scheduler_of("a", queue=QueuePolicy(timeout_s=5.0))
        checked.arrive(make_request("r1", service="chat"))
        checked.arrive(make_request("r2", service="chat"))
        assert checked.scheduler.next_deadline() == checked.now + 5.0
        decisions = checked.pass_deadline()
        assert refused(decisions) == [("Evict", "r2", RefusalReason.QUEUE_TIMEOUT)]

    def test_a_deadline_that_passes_early_or_twice_does_nothing(self) -> None:
        checked = scheduler_of("a", queue=QueuePolicy(timeout_s=5.0))
        checked.arrive(make_request("r1", service="chat"))
        checked.arrive(make_request("r2", service="chat"))
        checked.now += 4.9
        assert checked.feed(ev.DeadlinePassed()) == []
        checked.pass_deadline()
        assert checked.feed(ev.DeadlinePassed()) == []

    def test_a_service_may_have_less_patience_than_the_pool(self) -> None:
        hasty = make_service("hasty", max_queue_wait_s=2.0)
        checked = scheduler_of("a", services=[CHAT, hasty])
        checked.arrive(make_request("r1", service="chat"))
        checked.arrive(make_request("r2", service="hasty"))
        assert checked.scheduler.next_deadline() == checked.now + 2.0
        decisions = checked.pass_deadline()
        assert refused(decisions) == [("Evict", "r2", RefusalReason.NO_CAPACITY)]

    def test_more_patience_than_the_pool_changes_nothing(self) -> None:
        patient = make_service("patient", max_queue_wait_s=500.0)
        checked = scheduler_of("a", services=[CHAT, patient], queue=QueuePolicy(timeout_s=5.0))
        checked.arrive(make_request("r1", service="chat"))
        checked.arrive(make_request("r2", service="patient"))
        decisions = checked.pass_deadline()
        assert refused(decisions) == [("Evict", "r2", RefusalReason.QUEUE_TIMEOUT)]

    def test_without_patience_or_servers_the_servers_are_what_is_missing(self) -> None:
        checked = scheduler_of(services=[make_service("hasty", max_queue_wait_s=0.0)])
        decisions = checked.arrive(make_request("r1", service="hasty"))
        assert refused(decisions) == [("Reject", "r1", RefusalReason.NO_BACKEND)]

    def test_a_critical_arrival_displaces_as_many_as_it_needs(self) -> None:
        checked = scheduler_of("a", queue=QueuePolicy(max_bytes=300))
        checked.arrive(make_request("running"))
        for number in range(3):
            checked.arrive(make_request(f"r{number}", service="batch", body_bytes=100))
        decisions = checked.arrive(make_request("chat", service="chat", body_bytes=150))
        assert refused(decisions) == [
            ("Evict", "r2", RefusalReason.DISPLACED),
            ("Evict", "r1", RefusalReason.DISPLACED),
        ]
        assert checked.ids_in("queued") == ["r0", "chat"]


class TestEndings:
    def test_every_ending_releases_its_place(self) -> None:
        checked = scheduler_of("a")
        for number in range(6):
            checked.arrive(make_request(f"r{number}", service="chat"))
        assert dispatched(checked.finish("r0")) == [("r1", "a")]
        assert dispatched(checked.finish("r1", ok=False)) == [("r2", "a")]
        assert dispatched(checked.cancel("r2")) == [("r3", "a")]
        assert dispatched(checked.fail("r3", retryable=False)) == [("r4", "a")]
        checked.first_token("r4")
        assert dispatched(checked.cancel("r4")) == [("r5", "a")]
        checked.first_token("r5")
        checked.finish("r5")
        assert_everything_is_released(checked.scheduler)

    def test_only_good_answers_teach(self) -> None:
        usage = TokenUsage(prompt_tokens=10, completion_tokens=1)
        lengths = {}
        for ok in (True, False):
            checked = scheduler_of("a")
            for _ in range(50):
                checked.arrive(make_request("r1", service="chat", max_tokens=None))
                checked.finish("r1", usage, ok=ok)
            checked.arrive(make_request("asked", service="chat", max_tokens=None))
            explanation = checked.scheduler.explain(RequestId("asked"))
            assert explanation is not None
            lengths[ok] = explanation.expected_output_tokens
        assert lengths[True] < lengths[False] == 200

    def test_a_stream_that_breaks_is_not_tried_again(self) -> None:
        checked = scheduler_of("a", "b")
        checked.arrive(make_request("r1"))
        checked.first_token("r1")
        assert checked.fail("r1", FailureKind.RESET, retryable=True) == []
        assert_everything_is_released(checked.scheduler)

    def test_progress_of_servers_and_requests_that_are_gone_is_counted(self) -> None:
        checked = scheduler_of("a")
        ghost = ((RequestId("ghost"), 5),)
        checked.feed(ev.ResponseProgressed(BackendId("nowhere"), ghost, checked.now))
        checked.feed(ev.ResponseProgressed(BackendId("a"), ghost, checked.now))
        assert checked.scheduler.snapshot(now=checked.now).ignored_events == 2

    def test_progress_shows_in_the_servers_context(self) -> None:
        checked = scheduler_of("a")
        checked.arrive(make_request("r1", prompt_tokens=100))
        progress = ((RequestId("r1"), 30),)
        checked.feed(ev.ResponseProgressed(BackendId("a"), progress, checked.now))
        (backend,) = checked.scheduler.snapshot(now=checked.now).backends
        assert backend.context_tokens == 130


class TestRetries:
    def test_a_failed_attempt_goes_to_another_server(self) -> None:
        checked = scheduler_of("a", "b")
        checked.arrive(make_request("r1"))
        first = checked.backend_of("r1")
        (dispatch,) = checked.fail("r1", FailureKind.CONNECT)
        assert isinstance(dispatch, Dispatch)
        assert {first, dispatch.backend_id} == {"a", "b"}
        assert dispatch.attempt == 2

    def test_a_retry_waits_with_its_original_arrival_and_patience(self) -> None:
        checked = scheduler_of("a", "b")
        checked.arrive(make_request("r1", service="chat"))
        arrived_at, first = checked.now, checked.backend_of("r1")
        checked.now += 1.0
        checked.arrive(make_request("r2", service="chat"))
        checked.arrive(make_request("younger", service="chat"))
        assert dispatched(checked.fail("r1")) == [("younger", first)]
        assert checked.scheduler.next_deadline() == arrived_at + 30.0
        assert checked.arrive(make_request("youngest", service="chat")) == []
        assert dispatched(checked.finish("r2"))[0][0] == "r1"

    def test_a_retry_that_waits_does_not_hold_up_those_that_may_go_where_it_failed(self) -> None:
        checked = scheduler_of("a", "b")
        checked.arrive(make_request("r1", service="chat"))
        first = checked.backend_of("r1")
        checked.arrive(make_request("r2", service="chat"))
        assert checked.fail("r1") == []
        assert dispatched(checked.arrive(make_request("r3", service="chat"))) == [("r3", first)]

    def test_when_all_servers_were_tried_the_request_is_given_up(self) -> None:
        checked = scheduler_of("a", "b", retry=RetryPolicy(max_attempts=9))
        checked.arrive(make_request("r1"))
        checked.fail("r1")
        decisions = checked.fail("r1")
        assert refused(decisions) == [("Evict", "r1", RefusalReason.ATTEMPTS_EXHAUSTED)]

    def test_the_number_of_attempts_is_bounded(self) -> None:
        checked = scheduler_of("a", "b", "c", retry=RetryPolicy(max_attempts=2))
        checked.arrive(make_request("r1"))
        checked.fail("r1")
        decisions = checked.fail("r1")
        assert refused(decisions) == [("Evict", "r1", RefusalReason.ATTEMPTS_EXHAUSTED)]

    def test_retries_are_a_bounded_share_of_the_traffic(self) -> None:
        retry = RetryPolicy(budget_burst=1.0, budget_ratio=0.5)
        checked = scheduler_of("a", "b", "c", retry=retry)
        checked.arrive(make_request("r1"))
        assert len(dispatched(checked.fail("r1", FailureKind.OVERLOADED))) == 1
        decisions = checked.fail("r1", FailureKind.OVERLOADED)
        assert refused(decisions) == [("Evict", "r1", RefusalReason.ATTEMPTS_EXHAUSTED)]
        for number in (2, 3):  # two first dispatches earn one retry
            checked.arrive(make_request(f"r{number}"))
        assert len(dispatched(checked.fail("r2", FailureKind.OVERLOADED))) == 1

    def test_a_request_given_up_leaves_its_place_to_the_next(self) -> None:
        checked = scheduler_of("a")
        checked.arrive(make_request("r1"))
        checked.arrive(make_request("r2"))
        eviction, dispatch = checked.fail("r1")
        assert refused([eviction])[0][1] == "r1"
        assert dispatched([dispatch]) == [("r2", "a")]

    def test_with_no_server_left_a_retry_waits_for_a_new_one(self) -> None:
        checked = scheduler_of("a")
        checked.arrive(make_request("r1"))
        checked.leave("a")
        assert checked.fail("r1") == []
        assert checked.join("a", "lora-a") == []
        assert dispatched(checked.join("b")) == [("r1", "b")]


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

    def test_new_adapter_slots_hold_for_servers_that_join_later(self) -> None:
        checked = scheduler_of("a")
        checked.feed(ev.PoliciesChanged(make_policy(max_loras=3)))
        checked.join("b")
        slots = [b.max_loras for b in checked.scheduler.snapshot(now=checked.now).backends]
        assert slots == [1, 3]


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


@pytest.mark.parametrize("waiting", [1_000, 10_000])
def test_ten_thousand_that_wait_cost_each_event_no_more_than_a_thousand(
    monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    """Rule 7, by counting how often requests are compared with servers."""
    scheduler = build_scheduler(make_policy(CHAT, slots=1), Random(0))
    scheduler.handle(ev.BackendJoined(BackendId("a"), serving()), now=0.0)
    compared = 0
    is_open = scheduler._rules.capacity.is_open

    def counting(*args: object) -> bool:
        nonlocal compared
        compared += 1
        return is_open(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(scheduler._rules.capacity, "is_open", counting)
    for number in range(waiting + 1):
        request = make_request(f"r{number}", service="chat")
        scheduler.handle(ev.RequestArrived(request), now=float(number) / waiting)
    for number in range(waiting, 0, -1):
        scheduler.handle(ev.RequestCancelled(RequestId(f"r{number}")), now=2.0)
    scheduler.handle(ev.RequestCancelled(RequestId("r0")), now=2.0)
    assert compared <= 4 * waiting
    assert_everything_is_released(scheduler)
