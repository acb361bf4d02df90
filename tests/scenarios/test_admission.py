"""Who waits, who is refused, who leaves (scenarios 12 to 15 and 18, the scheduler's part)."""

from gateway.scheduling.decisions import Dispatch, Evict, RefusalReason, Reject
from gateway.scheduling.model import CRITICAL
from gateway.scheduling.policy import QueuePolicy
from tests.builders import make_policy, make_request, make_service
from tests.scheduling.checked_scheduler import CheckedScheduler
from tests.scheduling.invariants import assert_everything_is_released

CHAT = make_service("chat", priority=CRITICAL)
BATCH = make_service("batch")
IMPATIENT = make_service("impatient", max_queue_wait_s=0.0)


def scarce_pool(queue: QueuePolicy | None = None) -> CheckedScheduler:
    """One server with one place, which is taken by `running`."""
    checked = CheckedScheduler(make_policy(CHAT, BATCH, IMPATIENT, slots=1, queue=queue))
    checked.join("a")
    checked.arrive(make_request("running", service="chat"))
    return checked


def test_under_scarcity_a_non_critical_request_is_refused_with_a_time_to_retry() -> None:
    """Scenario 12, with no patience at all."""
    checked = scarce_pool()
    (reject,) = checked.arrive(make_request("r1", service="impatient"))
    assert isinstance(reject, Reject)
    assert reject.reason is RefusalReason.NO_CAPACITY
    assert reject.retry_after_s is not None
    assert 1.0 <= reject.retry_after_s <= 60.0


def test_without_scarcity_a_request_without_patience_is_served() -> None:
    """Scenario 12."""
    checked = scarce_pool()
    checked.join("b")
    (dispatch,) = checked.arrive(make_request("r1", service="impatient"))
    assert isinstance(dispatch, Dispatch)


def test_under_scarcity_a_critical_request_waits_and_is_served() -> None:
    """Scenario 12."""
    checked = scarce_pool()
    assert checked.arrive(make_request("r1", service="chat")) == []
    checked.now += 20.0
    (dispatch,) = checked.finish("running")
    assert isinstance(dispatch, Dispatch)
    assert dispatch.request_id == "r1"


def test_a_queue_at_its_limit_of_requests_refuses_one_more() -> None:
    """Scenario 13, the limit of all."""
    checked = scarce_pool(QueuePolicy(max_requests=3))
    for number in range(3):
        assert checked.arrive(make_request(f"r{number}", service="chat")) == []
    (reject,) = checked.arrive(make_request("r3", service="chat"))
    assert isinstance(reject, Reject)
    assert reject.reason is RefusalReason.QUEUE_FULL


def test_a_queue_at_its_limit_of_bytes_refuses_one_more() -> None:
    """Scenario 13."""
    checked = scarce_pool(QueuePolicy(max_bytes=1_000))
    assert checked.arrive(make_request("r1", service="chat", body_bytes=600)) == []
    assert checked.arrive(make_request("r2", service="chat", body_bytes=400)) == []
    (reject,) = checked.arrive(make_request("r3", service="chat", body_bytes=1))
    assert isinstance(reject, Reject)
    assert reject.reason is RefusalReason.QUEUE_FULL


def test_the_non_critical_bands_have_a_limit_of_their_own() -> None:
    """Scenario 13, the limit of the bands below 0."""
    checked = scarce_pool(QueuePolicy(max_non_critical_requests=1))
    assert checked.arrive(make_request("r1", service="batch")) == []
    (reject,) = checked.arrive(make_request("r2", service="batch"))
    assert isinstance(reject, Reject)
    assert reject.reason is RefusalReason.QUEUE_FULL
    assert checked.arrive(make_request("r3", service="chat")) == []


def test_at_a_full_queue_a_critical_arrival_displaces_the_newest_non_critical_one() -> None:
    """Scenario 13."""
    checked = scarce_pool(QueuePolicy(max_requests=2))
    checked.arrive(make_request("old", service="batch"))
    checked.arrive(make_request("new", service="batch"))
    (eviction,) = checked.arrive(make_request("r1", service="chat"))
    assert isinstance(eviction, Evict)
    assert (eviction.request_id, eviction.reason) == ("new", RefusalReason.DISPLACED)
    assert checked.ids_in("queued") == ["old", "r1"]


def test_a_client_that_leaves_while_queued_is_removed_at_once() -> None:
    """Scenario 14."""
    checked = scarce_pool()
    checked.arrive(make_request("r1", service="chat"))
    checked.arrive(make_request("r2", service="chat"))
    assert checked.cancel("r1") == []
    assert checked.scheduler.snapshot(now=checked.now).queued_requests == 1
    (dispatch,) = checked.finish("running")
    assert dispatch.request_id == "r2"


def test_slots_that_open_one_at_a_time_serve_all_critical_requests_first() -> None:
    """Scenario 15."""
    checked = scarce_pool()
    for number in range(5):
        checked.arrive(make_request(f"batch{number}", service="batch"))
        checked.arrive(make_request(f"chat{number}", service="chat"))
    served, running = [], "running"
    for _ in range(10):
        (dispatch,) = checked.finish(running)
        running = dispatch.request_id
        served.append(running)
    critical = [f"chat{number}" for number in range(5)]
    assert served == critical + [f"batch{number}" for number in range(5)]


def test_a_shutdown_serves_those_that_wait_and_those_that_were_on_their_way() -> None:
    """Scenario 18."""
    checked = scarce_pool()
    checked.arrive(make_request("waiting", service="chat"))
    checked.start_shutdown()
    checked.arrive(make_request("late", service="chat"))
    (dispatch,) = checked.finish("running")
    assert dispatch.request_id == "waiting"
    (dispatch,) = checked.finish("waiting")
    assert dispatch.request_id == "late"
    checked.finish("late")
    assert_everything_is_released(checked.scheduler)


def test_in_a_shutdown_who_waits_too_long_is_given_up_and_a_failed_attempt_is_retried() -> None:
    """Scenario 18."""
    checked = scarce_pool()
    checked.join("b")
    checked.arrive(make_request("other", service="chat"))
    checked.arrive(make_request("waiting", service="chat"))
    checked.start_shutdown()
    (eviction,) = checked.pass_deadline()
    assert isinstance(eviction, Evict)
    checked.finish("other")
    (retry,) = checked.fail("running")
    assert isinstance(retry, Dispatch)
    assert (retry.request_id, retry.attempt) == ("running", 2)
