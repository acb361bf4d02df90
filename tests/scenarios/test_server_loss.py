"""Servers that die and come back (scenarios 27 and 28, the scheduler's part)."""

from gateway.scheduling.decisions import Dispatch, Evict, RefusalReason
from gateway.scheduling.events import FailureKind
from gateway.scheduling.model import CRITICAL, TokenUsage
from gateway.scheduling.policy import QueuePolicy
from tests.builders import make_policy, make_request, make_service
from tests.scheduling.checked_scheduler import CheckedScheduler
from tests.scheduling.invariants import assert_everything_is_released

CHAT = make_service("chat", priority=CRITICAL)


def pool_of(*backends: str, slots: int = 8) -> CheckedScheduler:
    policy = make_policy(CHAT, slots=slots, queue=QueuePolicy(timeout_s=10.0))
    checked = CheckedScheduler(policy)
    for backend in backends:
        checked.join(backend, "lora-a")
    return checked


def test_a_server_killed_before_the_first_byte_leaves_its_requests_to_another() -> None:
    """Scenario 27."""
    checked = pool_of("a", "b")
    for number in range(8):
        checked.arrive(make_request(f"r{number}", service="chat"))
    lost = [
        request for request in checked.ids_in("in flight") if checked.backend_of(request) == "a"
    ]
    checked.leave("a")
    for request in lost:
        (retry,) = checked.fail(request, FailureKind.RESET)
        assert isinstance(retry, Dispatch)
        assert (retry.backend_id, retry.attempt) == ("b", 2)
    assert lost


def test_requests_of_a_killed_server_return_to_the_front() -> None:
    """Scenario 27: in the order of their original arrival, before those that came later."""
    checked = pool_of("a", "b", slots=2)
    for number in range(4):
        checked.now += 0.1
        checked.arrive(make_request(f"r{number}", service="chat"))
    lost = [
        request for request in checked.ids_in("in flight") if checked.backend_of(request) == "a"
    ]
    kept = [
        request for request in checked.ids_in("in flight") if checked.backend_of(request) == "b"
    ]
    checked.arrive(make_request("later", service="chat"))
    checked.leave("a")
    for request in reversed(lost):
        assert checked.fail(request, FailureKind.RESET) == []
    served = [d.request_id for request in kept for d in checked.finish(request)]
    assert served == lost
    assert [d.request_id for d in checked.finish(lost[0])] == ["later"]


def test_a_server_killed_mid_stream_releases_everything() -> None:
    """Scenario 27: the stream is over, and nothing stays counted, not even its adapter."""
    checked = pool_of("a")
    checked.arrive(make_request("r1", model="lora-a"))
    checked.first_token("r1")
    checked.leave("a")
    assert checked.fail("r1", FailureKind.RESET, retryable=False) == []
    assert_everything_is_released(checked.scheduler)
    checked.join("a", "lora-a")
    (backend,) = checked.scheduler.snapshot(now=checked.now).backends
    assert (backend.requests, backend.active_adapters) == (0, {})


def test_without_servers_requests_wait_are_given_up_and_flow_again() -> None:
    """Scenario 28: 200* 503* 200*."""
    checked = pool_of("a")
    answers = []
    for number in range(9):
        if number == 3:
            checked.leave("a")
        if number == 6:
            checked.join("a", "lora-a")
        checked.now += 1.0
        decisions = checked.arrive(make_request(f"r{number}", service="chat"))
        decisions = decisions or checked.pass_deadline()
        for decision in decisions:
            answers.append(200 if isinstance(decision, Dispatch) else 503)
            if isinstance(decision, Evict):
                assert decision.reason is RefusalReason.NO_BACKEND
            else:
                checked.finish(decision.request_id, TokenUsage(completion_tokens=5))
    assert answers == [200] * 3 + [503] * 3 + [200] * 3
    assert_everything_is_released(checked.scheduler)
