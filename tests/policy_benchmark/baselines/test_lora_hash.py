from gateway.policy_benchmark.baselines.immediate_dispatch import ImmediateDispatch
from gateway.policy_benchmark.baselines.lora_hash import LoraHash
from tests.policy_benchmark.baselines.baseline_rig import BaselineRig


def rig(*servers: str) -> BaselineRig:
    return BaselineRig(ImmediateDispatch(LoraHash()), *servers)


def home_of(model: str, *servers: str) -> str:
    return rig(*servers).arrive("r", model=model)


def test_an_adapter_has_one_home_whatever_the_order_of_the_servers() -> None:
    for number in range(20):
        model = f"adapter-{number}"
        assert home_of(model, "a", "b", "c") == home_of(model, "c", "a", "b")


def test_a_server_that_leaves_moves_only_its_own_adapters() -> None:
    for number in range(50):
        model = f"adapter-{number}"
        before = home_of(model, "a", "b", "c")
        if before != "c":
            assert home_of(model, "a", "b") == before


def test_a_full_home_spills_over_to_the_next() -> None:
    fleet = rig("a", "b")
    home = fleet.arrive("r1", model="x")
    # Limits with this one: ceil(1.25 * 2 / 2) = 2, then ceil(1.25 * 3 / 2) = 2: the third spills.
    assert fleet.arrive("r2", model="x") == home
    assert fleet.arrive("r3", model="x") != home
