from random import Random

from gateway.policy_benchmark.baselines.immediate_dispatch import ImmediateDispatch
from gateway.policy_benchmark.baselines.power_of_two import PowerOfTwo
from tests.policy_benchmark.baselines.baseline_rig import BaselineRig


def test_of_two_servers_the_less_loaded_is_taken() -> None:
    fleet = BaselineRig(ImmediateDispatch(PowerOfTwo(Random(1))), "a", "b")
    picks = [fleet.arrive(f"r{n}") for n in range(10)]
    assert picks.count("a") == 5


def test_the_most_loaded_of_three_is_never_taken() -> None:
    for seed in range(50):
        fleet = BaselineRig(ImmediateDispatch(PowerOfTwo(Random(seed))), "a")
        fleet.arrive("r1")
        for server in ("b", "c"):
            BaselineRig(fleet.policy, server)
        assert fleet.arrive("r2") != "a"


def test_a_single_server_is_taken() -> None:
    fleet = BaselineRig(ImmediateDispatch(PowerOfTwo(Random(1))), "a")
    assert fleet.arrive("r1") == "a"
