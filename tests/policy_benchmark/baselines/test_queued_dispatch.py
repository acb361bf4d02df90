from random import Random

from gateway.policy_benchmark.baselines.first_come import FirstCome
from gateway.policy_benchmark.baselines.queued_dispatch import QueuedDispatch
from gateway.scheduling.events import RequestCancelled
from gateway.scheduling.model import BackendId, RequestId
from tests.policy_benchmark.baselines.baseline_rig import BaselineRig


def rig(limit: int = 1) -> BaselineRig:
    limits = {BackendId("a"): limit, BackendId("b"): limit}
    policy = QueuedDispatch(order=FirstCome(), limits=limits, rng=Random(1))
    return BaselineRig(policy, "a", "b")


def test_requests_beyond_the_limit_wait_until_one_ends() -> None:
    fleet = rig()
    assert {fleet.arrive("r1"), fleet.arrive("r2")} == {"a", "b"}
    assert fleet.arrive("r3") == "queued"
    assert len(fleet.finish("r1")) == 1


def test_the_freed_server_gets_the_oldest() -> None:
    fleet = rig()
    place = fleet.arrive("r1")
    for waiting in ("r2", "r3", "r4"):
        fleet.arrive(waiting)
    assert fleet.finish("r1") == [place]
    assert fleet.arrive("r5") == "queued"


def test_a_failed_request_is_tried_three_times() -> None:
    fleet = rig(limit=5)
    fleet.arrive("r1")
    assert len(fleet.fail("r1")) == 1
    assert fleet.fail("r1") in (["a"], ["b"])
    assert fleet.fail("r1") == ["refused"]


def test_a_request_that_is_cancelled_while_it_waits_is_passed_over() -> None:
    fleet = rig()
    place = fleet.arrive("r1")
    for waiting in ("r2", "r3", "r4"):
        fleet.arrive(waiting)
    fleet.policy.handle(RequestCancelled(RequestId("r3")), now=0.0)
    assert fleet.finish("r1") == [place]
    assert fleet.finish("r4") == []
