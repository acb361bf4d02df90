from random import Random

from gateway.policy_benchmark.baselines.immediate_dispatch import ImmediateDispatch
from gateway.policy_benchmark.baselines.sticky import Sticky
from gateway.scheduling.model import ServiceName
from tests.policy_benchmark.baselines.baseline_rig import BaselineRig

BLOCKS = (1, 2, 3, 4, 5)


def rig() -> BaselineRig:
    sticky = Sticky({ServiceName("chat"): 1000.0}, Random(1))
    return BaselineRig(ImmediateDispatch(sticky), "a", "b")


def test_a_prefix_stays_on_its_server_while_the_gap_is_within_tau() -> None:
    fleet = rig()
    home = fleet.arrive("r1", prompt_tokens=500, blocks=BLOCKS)
    # 500 tokens in flight at home, none elsewhere: a gap of 500 <= 1000.
    assert fleet.arrive("r2", prompt_tokens=500, blocks=BLOCKS) == home


def test_affinity_breaks_when_the_home_is_more_than_tau_behind() -> None:
    fleet = rig()
    home = fleet.arrive("r1", prompt_tokens=1001, blocks=BLOCKS)
    assert fleet.arrive("r2", prompt_tokens=500, blocks=BLOCKS) != home


def test_prefill_work_ends_with_the_first_token() -> None:
    fleet = rig()
    home = fleet.arrive("r1", prompt_tokens=1001, blocks=BLOCKS)
    fleet.first_token("r1")
    assert fleet.arrive("r2", prompt_tokens=500, blocks=BLOCKS) == home


def test_less_than_four_fifths_of_the_prefix_is_no_affinity() -> None:
    fleet = rig()
    home = fleet.arrive("r1", prompt_tokens=900, blocks=BLOCKS)
    assert fleet.arrive("r2", prompt_tokens=10, blocks=(1, 2, 3, 4, 9)) == home
    assert fleet.arrive("r3", prompt_tokens=10, blocks=(1, 2, 3, 8, 9)) != home


def test_only_uncached_tokens_count_as_prefill_work() -> None:
    fleet = rig()
    home = fleet.arrive("r1", prompt_tokens=800, blocks=BLOCKS)
    for number in range(2, 30):
        assert fleet.arrive(f"r{number}", prompt_tokens=800, blocks=BLOCKS) == home
