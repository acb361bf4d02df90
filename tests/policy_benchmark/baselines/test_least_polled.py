from random import Random

from gateway.policy_benchmark.baselines.immediate_dispatch import ImmediateDispatch
from gateway.policy_benchmark.baselines.least_polled import LeastPolled, polled_kv, polled_queue
from tests.policy_benchmark.baselines.baseline_rig import BaselineRig


def test_least_kv_takes_the_smallest_kv_use() -> None:
    fleet = BaselineRig(ImmediateDispatch(LeastPolled(polled_kv, Random(1))), "a", "b", "c")
    fleet.report("a", kv=0.5, waiting=0)
    fleet.report("b", kv=0.3, waiting=9)
    fleet.report("c", kv=0.4, waiting=0)
    assert fleet.arrive("r1") == "b"


def test_least_queue_takes_the_shortest_queue() -> None:
    fleet = BaselineRig(ImmediateDispatch(LeastPolled(polled_queue, Random(1))), "a", "b", "c")
    fleet.report("a", kv=0.0, waiting=2)
    fleet.report("b", kv=0.9, waiting=1)
    fleet.report("c", kv=0.0, waiting=3)
    assert fleet.arrive("r1") == "b"


def test_between_two_polls_all_arrivals_herd_onto_one_server() -> None:
    fleet = BaselineRig(ImmediateDispatch(LeastPolled(polled_kv, Random(1))), "a", "b")
    fleet.report("a", kv=0.2)
    fleet.report("b", kv=0.1)
    assert {fleet.arrive(f"r{n}") for n in range(20)} == {"b"}
    fleet.report("b", kv=0.3)
    assert fleet.arrive("r20") == "a"
