from random import Random

from gateway.policy_benchmark.baselines.filter_tree import FilterTree
from gateway.policy_benchmark.baselines.immediate_dispatch import ImmediateDispatch
from gateway.scheduling.model import ServiceName
from tests.policy_benchmark.baselines.baseline_rig import BaselineRig


def rig(*servers: str, seed: int = 1) -> BaselineRig:
    tree = FilterTree([ServiceName("critical")], Random(seed))
    return BaselineRig(ImmediateDispatch(tree), *servers)


def test_a_critical_request_goes_where_its_adapter_is_active_though_others_are_emptier() -> None:
    fleet = rig("a", "b", "c")
    fleet.report("a", waiting=0, kv=0.2, adapters=["x"], max_loras=2)
    fleet.report("b", waiting=3, kv=0.1, adapters=["mine"], max_loras=2)
    fleet.report("c", waiting=10, kv=0.2, adapters=[], max_loras=2)
    assert fleet.arrive("r1", service="critical", model="mine") == "b"


def test_an_adapter_that_is_nowhere_goes_to_a_free_slot_never_to_a_full_server() -> None:
    fleet = rig("a", "b")
    fleet.report("a", waiting=0, kv=0.0, adapters=["x", "y"], max_loras=2)
    fleet.report("b", waiting=0, kv=0.9, adapters=["x"], max_loras=2)
    assert fleet.arrive("r1", service="critical", model="mine") == "b"


def test_one_in_a_thousand_goes_to_a_free_slot_although_the_adapter_is_active() -> None:
    picks = []
    for seed in range(5000):
        fleet = rig("a", "b", seed=seed)
        fleet.report("a", adapters=["mine"], max_loras=2)
        fleet.report("b", adapters=[], max_loras=2)
        picks.append(fleet.arrive("r1", service="critical", model="mine"))
    # n = 5000, p = .001: mean 5, sigma 2.2
    assert 0 < picks.count("b") < 15


def test_least_queue_keeps_all_within_an_nth_of_the_range_then_least_kv_decides() -> None:
    fleet = rig("a", "b", "c", "d")
    # Range 0..8 over 4 servers: up to 2 waiting stay, that is a, b and c; b has the least KV.
    fleet.report("a", waiting=0, kv=0.9)
    fleet.report("b", waiting=2, kv=0.1)
    fleet.report("c", waiting=1, kv=0.5)
    fleet.report("d", waiting=8, kv=0.0)
    assert fleet.arrive("r1", service="critical") == "b"


def test_with_long_queues_everywhere_the_queue_decides_before_the_adapter() -> None:
    fleet = rig("a", "b")
    fleet.report("a", waiting=300, kv=0.1, adapters=["mine"], max_loras=2)
    fleet.report("b", waiting=130, kv=0.1, adapters=["x"], max_loras=2)
    assert fleet.arrive("r1", service="critical", model="mine") == "b"


def test_a_non_critical_request_is_refused_unless_some_server_has_room() -> None:
    fleet = rig("a", "b")
    fleet.report("a", waiting=6, kv=0.1)
    fleet.report("b", waiting=0, kv=0.81)
    assert fleet.arrive("r1", service="batch") == "refused"
    assert fleet.arrive("r2", service="critical") == "b"
    fleet.report("a", waiting=5, kv=0.8)
    assert fleet.arrive("r3", service="batch") == "a"
