from random import Random

from gateway.policy_benchmark.baselines.immediate_dispatch import ImmediateDispatch
from gateway.policy_benchmark.baselines.prefix_aware import PrefixAware
from tests.policy_benchmark.baselines.baseline_rig import BaselineRig


def rig() -> BaselineRig:
    return BaselineRig(ImmediateDispatch(PrefixAware(Random(1))), "a", "b")


def test_the_longest_match_is_taken_while_its_load_is_within_the_bound() -> None:
    fleet = rig()
    home = fleet.arrive("r1", blocks=(1, 2, 3))
    other = fleet.arrive("r2")
    assert other != home
    # One each, mean with this one 1.5: 1 <= 1.875.
    assert fleet.arrive("r3", blocks=(1, 2, 9)) == home


def test_an_overloaded_home_loses_to_least_outstanding() -> None:
    fleet = rig()
    home = fleet.arrive("r1", blocks=(1, 2, 3))
    # 1 at home, 0 elsewhere, mean with this one 1: 1 <= 1.25 goes home.
    assert fleet.arrive("r2", blocks=(1, 2, 3)) == home
    # 2 at home, mean 1.5: 2 > 1.875 goes away.
    assert fleet.arrive("r3", blocks=(1, 2, 3)) != home


def test_without_a_match_least_outstanding_decides() -> None:
    fleet = rig()
    assert {fleet.arrive("r1", blocks=(1,)), fleet.arrive("r2", blocks=(7,))} == {"a", "b"}
