from random import Random

from gateway.policy_benchmark.baselines.immediate_dispatch import ImmediateDispatch
from gateway.policy_benchmark.baselines.probabilistic_shed import ProbabilisticShed
from gateway.scheduling.model import ServiceName
from tests.policy_benchmark.baselines.baseline_rig import BaselineRig


def shed_of(service: str, *, waiting: int, kv: float, tries: int = 1000) -> int:
    policy = ProbabilisticShed([ServiceName("critical")], Random(5))
    fleet = BaselineRig(ImmediateDispatch(policy), "a", "b")
    fleet.report("a", waiting=waiting, kv=kv)
    fleet.report("b", waiting=0, kv=0.0)
    picks = [fleet.arrive(f"r{n}", service=service) for n in range(tries)]
    return picks.count("refused")


def test_critical_requests_are_never_refused() -> None:
    assert shed_of("critical", waiting=50, kv=1.0) == 0


def test_the_chance_is_300_times_the_fifth_power_of_saturation() -> None:
    # sat = mean(max(0/5, .32/.8), 0) = .2; p = 300 * .2^5 = .096; n = 1000, sigma 9.3
    assert abs(shed_of("batch", waiting=0, kv=0.32) - 96) < 38


def test_above_a_third_of_saturation_all_are_refused() -> None:
    # sat = mean(max(5/5, 0), 0) = .5; 300 * .5^5 = 9.4, capped at 1
    assert shed_of("batch", waiting=5, kv=0.0) == 1000


def test_an_idle_pool_refuses_nothing() -> None:
    assert shed_of("batch", waiting=0, kv=0.0) == 0
