"""Who is served when; the contract under any history is test_scheduler_rules.

CheckedScheduler makes sure after each event of these tests too that the contract holds.
"""

import pytest
from msgspec.structs import replace

from gateway.scheduling import events as ev
from gateway.scheduling.decisions import Dispatch, RefusalReason
from gateway.scheduling.model import CRITICAL, BackendId, LatencyObjective, RequestId
from gateway.scheduling.policy import QueuePolicy
from tests.builders import make_request, make_service
from tests.scheduling.scheduler_scenes import BATCH, CHAT, dispatched, refused, scheduler_of


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

    def test_a_service_whose_model_no_server_has_says_so(self) -> None:
        checked = scheduler_of("a", services=[make_service("chat", targets=[("nowhere", 1.0)])])
        decisions = checked.arrive(make_request("r1", service="chat"))
        assert refused(decisions) == [("Reject", "r1", RefusalReason.NO_TARGET_MODEL)]

    def test_a_service_whose_targets_all_weigh_nothing_has_no_model(self) -> None:
        checked = scheduler_of("a", services=[make_service("chat", targets=[("a", 0.0)])])
        decisions = checked.arrive(make_request("r1", service="chat"))
        assert refused(decisions) == [("Reject", "r1", RefusalReason.NO_TARGET_MODEL)]

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

    def test_a_critical_request_that_can_only_be_late_does_not_wait_beside_an_idle_server(
        self,
    ) -> None:
        hurried = make_service(
            "hurried", priority=CRITICAL, objective=LatencyObjective(ttft_s=0.001)
        )
        checked = scheduler_of("a", services=[hurried])
        assert dispatched(checked.arrive(make_request("r1", service="hurried"))) == [("r1", "a")]

    def test_an_idle_server_takes_a_prompt_of_any_length(self) -> None:
        checked = scheduler_of("a")
        endless = make_request("r1", service="chat", prompt_tokens=2_000_000)
        assert dispatched(checked.arrive(endless)) == [("r1", "a")]


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

    def test_a_server_kept_for_an_overtaken_head_is_offered_to_others_when_that_has_left(
        self,
    ) -> None:
        checked = scheduler_of("a", "b", slots=2)
        for number in range(4):
            checked.arrive(make_request(f"r{number}", service="chat"))
        on_a = [r for r in checked.ids_in("in flight") if checked.backend_of(r) == "a"]
        on_b = [r for r in checked.ids_in("in flight") if checked.backend_of(r) == "b"]
        checked.arrive(make_request("pair", service="chat", choices=2))
        checked.arrive(make_request("s1", service="batch"))
        checked.arrive(make_request("s2", service="batch"))
        assert dispatched(checked.finish(on_a[0])) == [("s1", "a")]
        assert checked.finish(on_a[1]) == [], "the other place on a is kept for the pair"
        assert checked.finish(on_b[0]) == []
        assert dispatched(checked.finish(on_b[1])) == [("pair", "b"), ("s2", "a")]

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

    def test_where_all_servers_are_gone_the_wait_ends_for_lack_of_one(self) -> None:
        checked = scheduler_of("a")
        checked.arrive(make_request("running"))
        checked.arrive(make_request("r1"))
        checked.leave("a")
        assert refused(checked.pass_deadline()) == [("Evict", "r1", RefusalReason.NO_BACKEND)]

    def test_what_was_on_its_way_when_the_shutdown_began_is_served(self) -> None:
        checked = scheduler_of("a")
        checked.start_shutdown()
        decisions = checked.arrive(make_request("r1"))
        assert [type(each) for each in decisions] == [Dispatch]

    @pytest.mark.parametrize(
        ("broke_at", "may_go_to"),
        [(("a",), {"b"}), (("b",), {"a"}), (("a", "b"), {"a", "b"}), (("gone",), {"a", "b"})],
    )
    def test_the_rest_of_an_answer_goes_where_it_did_not_break_if_there_is_such_a_server(
        self, broke_at: tuple[str, ...], may_go_to: set[str]
    ) -> None:
        checked = scheduler_of("a", "b")
        broken = tuple(BackendId(each) for each in broke_at)
        request = replace(make_request("rest", service="chat"), broke_at=broken)
        ((_, server),) = dispatched(checked.arrive(request))
        assert server in may_go_to

    def test_the_rest_of_an_answer_goes_back_where_all_other_servers_are_ejected(self) -> None:
        checked = scheduler_of("a", "b", slots=9)
        for name in ("r1", "r2"):
            checked.arrive(make_request(name, service="chat"))
        (on_b,) = [name for name in ("r1", "r2") if checked.backend_of(name) == "b"]
        checked.fail(on_b, ev.FailureKind.STALLED, retryable=False)
        request = replace(make_request("rest", service="chat"), broke_at=(BackendId("a"),))
        assert dispatched(checked.arrive(request)) == [("rest", "a")]

    @pytest.mark.parametrize("kind", [ev.FailureKind.RESET, ev.FailureKind.SERVER_ERROR])
    def test_the_rest_of_an_answer_goes_back_when_all_other_servers_failed_it(
        self, kind: ev.FailureKind
    ) -> None:
        checked = scheduler_of("a", "b")
        request = replace(make_request("rest", service="chat"), broke_at=(BackendId("a"),))
        assert dispatched(checked.arrive(request)) == [("rest", "b")]
        assert dispatched(checked.fail("rest", kind)) == [("rest", "a")]

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

    def test_a_non_critical_service_may_have_more_patience_than_the_pool(self) -> None:
        patient = make_service("patient", max_queue_wait_s=500.0)
        checked = scheduler_of("a", services=[CHAT, patient], queue=QueuePolicy(timeout_s=5.0))
        checked.arrive(make_request("r1", service="chat"))
        checked.arrive(make_request("r2", service="patient"))
        arrived_at = checked.now
        decisions = checked.pass_deadline()
        assert refused(decisions) == [("Evict", "r2", RefusalReason.QUEUE_TIMEOUT)]
        assert checked.now == arrived_at + 500.0

    def test_without_patience_or_servers_the_servers_are_what_is_missing(self) -> None:
        checked = scheduler_of(services=[make_service("hasty", max_queue_wait_s=0.0)])
        decisions = checked.arrive(make_request("r1", service="hasty"))
        assert refused(decisions) == [("Reject", "r1", RefusalReason.NO_BACKEND)]

    def test_without_patience_a_full_server_is_told_of_at_once(self) -> None:
        checked = scheduler_of("a", services=[make_service("hasty", max_queue_wait_s=0.0)])
        checked.arrive(make_request("r1", service="hasty"))
        decisions = checked.arrive(make_request("r2", service="hasty"))
        assert refused(decisions) == [("Reject", "r2", RefusalReason.NO_CAPACITY)]

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


def test_a_report_that_repeats_or_takes_back_progress_changes_no_count() -> None:
    checked = scheduler_of("a")
    checked.arrive(make_request("r1", prompt_tokens=70))
    context: list[int] = []
    for events in (30, 30, 10):
        progress = ((RequestId("r1"), events),)
        checked.feed(ev.ResponseProgressed(BackendId("a"), progress, checked.now))
        (server,) = checked.scheduler.snapshot(now=checked.now).backends
        context.append(server.context_tokens)
    assert context == [100, 100, 100]


def test_one_report_brings_the_progress_of_several_streams_of_a_service() -> None:
    checked = scheduler_of("a", slots=2)
    for name in ("r1", "r2"):
        checked.arrive(make_request(name, prompt_tokens=70))
    progress = ((RequestId("r1"), 10), (RequestId("r2"), 20))
    checked.feed(ev.ResponseProgressed(BackendId("a"), progress, checked.now))
    (server,) = checked.scheduler.snapshot(now=checked.now).backends
    assert server.context_tokens == 70 + 10 + 70 + 20
