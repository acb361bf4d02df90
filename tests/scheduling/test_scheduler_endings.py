"""How requests end, are tried again, and what is learned of them.

CheckedScheduler makes sure after each event of these tests too that the contract holds.
"""

from gateway.scheduling import events as ev
from gateway.scheduling.decisions import Dispatch, RefusalReason
from gateway.scheduling.events import FailureKind
from gateway.scheduling.model import (
    BackendId,
    RequestId,
    ServiceName,
    TokenUsage,
)
from gateway.scheduling.policy import RetryPolicy
from tests.builders import make_request
from tests.scheduling.invariants import assert_everything_is_released
from tests.scheduling.scheduler_scenes import dispatched, refused, scheduler_of


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

    def test_who_leaves_without_a_first_token_teaches_how_long_it_takes_at_least(self) -> None:
        forecasts = {}
        for waited_s in (0.0, 20.0):
            checked = scheduler_of("a")
            for _ in range(30):
                checked.arrive(make_request("r1", service="chat"))
                checked.now += waited_s
                checked.cancel("r1")
            (dispatch,) = checked.arrive(make_request("asked", service="chat"))
            assert isinstance(dispatch, Dispatch)
            forecasts[waited_s] = dispatch.forecast.ttft_p90_s
        assert forecasts[20.0] > 2 * forecasts[0.0]

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

    def test_endings_and_tokens_of_requests_not_in_flight_are_counted(self) -> None:
        checked = scheduler_of("a")
        checked.arrive(make_request("running"))
        checked.arrive(make_request("queued"))
        for wrong in ("queued", "never-seen"):
            checked.first_token(wrong)
            checked.finish(wrong)
            checked.fail(wrong)
        checked.cancel("never-seen")
        assert checked.scheduler.snapshot(now=checked.now).ignored_events == 7
        assert checked.ids_in("queued") == ["queued"]


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
        checked.fail("r1", FailureKind.SERVER_ERROR)
        decisions = checked.fail("r1", FailureKind.SERVER_ERROR)
        assert refused(decisions) == [("Evict", "r1", RefusalReason.ATTEMPTS_EXHAUSTED)]

    def test_a_request_whose_servers_all_vanished_waits_as_long_as_any_request_would(self) -> None:
        checked = scheduler_of("a", "b")
        checked.arrive(make_request("r1"))
        checked.fail("r1", FailureKind.CONNECT)
        assert checked.fail("r1", FailureKind.RESET) == []
        decisions = checked.pass_deadline()
        while not decisions:  # servers that are probed again are none that it has not tried
            decisions = checked.pass_deadline()
        assert refused(decisions) == [("Evict", "r1", RefusalReason.QUEUE_TIMEOUT)]

    def test_a_server_that_came_back_is_another_one_to_a_request_that_waits(self) -> None:
        checked = scheduler_of("a")
        checked.arrive(make_request("r1"))
        checked.fail("r1", FailureKind.UNRESPONSIVE)
        checked.leave("a")
        assert dispatched(checked.join("a")) == [("r1", "a")]

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
        eviction, dispatch = checked.fail("r1", FailureKind.OVERLOADED)
        assert refused([eviction])[0][1] == "r1"
        assert dispatched([dispatch]) == [("r2", "a")]

    def test_with_no_server_left_a_retry_waits_for_a_new_one(self) -> None:
        checked = scheduler_of("a")
        checked.arrive(make_request("r1"))
        checked.leave("a")
        assert checked.fail("r1") == []
        assert dispatched(checked.join("b")) == [("r1", "b")]


def test_the_tokens_of_a_stream_without_usage_are_counted_as_its_service_streams_them() -> None:
    checked = scheduler_of("a")
    count = checked.scheduler.tokens_of_events
    assert count(ServiceName("default"), 30) == 30
    for number in range(100):
        checked.arrive(make_request(f"r{number}"))
        checked.finish(f"r{number}", TokenUsage(100, 60, None, 20))
    assert count(ServiceName("default"), 30) > 75
    assert count(ServiceName("another"), 30) == 30
