from random import Random

from gateway.policy_benchmark.baselines.immediate_dispatch import ImmediateDispatch
from gateway.policy_benchmark.baselines.least_outstanding import LeastOutstanding
from gateway.policy_benchmark.baselines.round_robin import RoundRobin
from tests.policy_benchmark.baselines.baseline_rig import BaselineRig


def rig(*servers: str) -> BaselineRig:
    return BaselineRig(ImmediateDispatch(LeastOutstanding(Random(1))), *servers)


def test_a_request_without_servers_is_refused() -> None:
    assert rig().arrive("r1") == "refused"


def test_a_server_that_left_gets_no_more_requests() -> None:
    fleet = rig("a", "b")
    fleet.leave("a")
    assert {fleet.arrive(f"r{n}") for n in range(4)} == {"b"}


def test_a_failed_attempt_goes_to_another_server_and_is_given_up_after_three() -> None:
    fleet = BaselineRig(ImmediateDispatch(RoundRobin()), "a", "b", "c")
    assert fleet.arrive("r1") == "a"
    assert fleet.fail("r1") == ["b"]
    assert fleet.fail("r1") == ["c"]
    assert fleet.fail("r1") == ["refused"]


def test_an_answer_that_broke_after_its_first_byte_is_not_tried_again() -> None:
    fleet = rig("a", "b")
    fleet.arrive("r1")
    assert fleet.fail("r1", retryable=False) == []


def test_failed_and_finished_requests_are_no_longer_counted() -> None:
    fleet = rig("a", "b")
    first = fleet.arrive("r1")
    second = fleet.arrive("r2")
    assert {first, second} == {"a", "b"}
    fleet.finish("r1")
    assert fleet.arrive("r3") == first
    fleet.fail("r2", retryable=False)
    assert fleet.arrive("r4") == second


def test_nothing_ever_waits() -> None:
    assert rig("a").policy.next_deadline() is None
