from gateway.policy_benchmark.baselines.immediate_dispatch import ImmediateDispatch
from gateway.policy_benchmark.baselines.round_robin import RoundRobin
from tests.policy_benchmark.baselines.baseline_rig import BaselineRig


def test_servers_take_turns() -> None:
    fleet = BaselineRig(ImmediateDispatch(RoundRobin()), "a", "b", "c")
    assert [fleet.arrive(f"r{n}") for n in range(5)] == ["a", "b", "c", "a", "b"]
