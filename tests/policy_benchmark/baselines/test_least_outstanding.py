from random import Random

from gateway.policy_benchmark.baselines.immediate_dispatch import ImmediateDispatch
from gateway.policy_benchmark.baselines.least_outstanding import LeastOutstanding
from tests.policy_benchmark.baselines.baseline_rig import BaselineRig


def rig(*servers: str) -> BaselineRig:
    return BaselineRig(ImmediateDispatch(LeastOutstanding(Random(3))), *servers)


def test_the_server_with_the_fewest_in_flight_is_taken() -> None:
    fleet = rig("a", "b", "c")
    first_three = [fleet.arrive(f"r{n}") for n in range(3)]
    assert sorted(first_three) == ["a", "b", "c"]
    fleet.finish("r1")
    assert fleet.arrive("r3") == first_three[1]


def test_ties_are_spread_evenly() -> None:
    picks = [
        BaselineRig(ImmediateDispatch(LeastOutstanding(Random(seed))), "a", "b").arrive("r")
        for seed in range(1000)
    ]
    # n = 1000, p = 1/2: sigma = 15.8
    assert abs(picks.count("a") - 500) < 64


def test_polled_metrics_do_not_matter() -> None:
    fleet = rig("a", "b")
    fleet.report("a", waiting=100, kv=1.0)
    fleet.report("b")
    assert {fleet.arrive("r1"), fleet.arrive("r2")} == {"a", "b"}
