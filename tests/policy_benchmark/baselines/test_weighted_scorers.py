from random import Random

from gateway.policy_benchmark.baselines.immediate_dispatch import ImmediateDispatch
from gateway.policy_benchmark.baselines.weighted_scorers import ScorerWeights, WeightedScorers
from tests.policy_benchmark.baselines.baseline_rig import BaselineRig


def rig(weights: ScorerWeights) -> BaselineRig:
    return BaselineRig(ImmediateDispatch(WeightedScorers(weights, Random(1))), "a", "b", "c")


def test_the_highest_weighted_sum_of_queue_and_kv_wins() -> None:
    fleet = rig(ScorerWeights())
    # 2*queue + 2*(1 - kv): a 2*1 + 2*.1 = 2.2; b 2*.5 + 2*.9 = 2.8; c 2*0 + 2*1 = 2.0
    fleet.report("a", waiting=0, kv=0.9)
    fleet.report("b", waiting=2, kv=0.1)
    fleet.report("c", waiting=4, kv=0.0)
    assert fleet.arrive("r1") == "b"


def test_a_prefix_match_outweighs_a_longer_queue_with_weight_three_not_with_one() -> None:
    blocks = (1, 2, 3, 4)
    for weights, expected in ((ScorerWeights(), "a"), (ScorerWeights(1.0, 1.0, 1.0), "b")):
        fleet = rig(weights)
        # The first request puts the prefix on a.
        fleet.report("b", waiting=1)
        fleet.report("c", waiting=1)
        assert fleet.arrive("r1", blocks=blocks) == "a"
        # 2,2,3: a 0 + .4*2 + 3 = 3.8; b 2 + 2 = 4 without kv; kv of b .2 -> 3.6
        # 1,1,1: a 0 + .4 + 1 = 1.4; b 1 + .8 = 1.8
        fleet.report("a", waiting=5, kv=0.6)
        fleet.report("b", waiting=0, kv=0.2)
        fleet.report("c", waiting=5, kv=1.0)
        assert fleet.arrive("r2", blocks=blocks) == expected
