from random import Random

from gateway.policy_benchmark.baselines.immediate_dispatch import ImmediateDispatch
from gateway.policy_benchmark.baselines.random_choice import RandomChoice
from tests.policy_benchmark.baselines.baseline_rig import BaselineRig


def test_each_server_gets_its_share_within_four_sigma() -> None:
    fleet = BaselineRig(ImmediateDispatch(RandomChoice(Random(7))), "a", "b", "c", "d")
    picks = [fleet.arrive(f"r{n}") for n in range(4000)]
    for server in "abcd":
        # n = 4000, p = 1/4: sigma = sqrt(4000 * 1/4 * 3/4) = 27.4
        assert abs(picks.count(server) - 1000) < 110
