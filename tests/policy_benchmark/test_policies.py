from pathlib import Path

import pytest

from gateway.policy_benchmark.benchmark_error import BenchmarkError
from gateway.policy_benchmark.policies import find_policy, in_flight_limits, policy_kinds
from gateway.scheduling.policy import FairnessDimension
from tests.policy_benchmark.workload_texts import plan

BASELINES = {
    "random", "round_robin", "least_outstanding", "p2c", "least_kv", "least_queue", "filter_tree",
    "weighted_scorers", "weighted_scorers:equal", "sticky", "prefix_aware", "lora_hash", "vtc",
    "fcfs", "probabilistic_shed", "clairvoyant_greedy", "running_median",
}  # fmt: skip


def test_every_baseline_and_ours_are_there() -> None:
    ours = {"gateway", "gateway:preempt", *(f"gateway:{d}" for d in FairnessDimension)}
    assert set(policy_kinds()) == BASELINES | ours


def test_an_unknown_policy_is_answered_with_what_there_is() -> None:
    with pytest.raises(BenchmarkError, match=r"unknown policy 'magic'.*gateway, gateway:slo"):
        find_policy("magic")


def test_a_variant_that_is_not_built_names_what_exists() -> None:
    with pytest.raises(BenchmarkError, match="'gateway:astrology', or not built yet; there are:"):
        find_policy("gateway:astrology")


def test_the_poll_interval_can_be_part_of_the_name() -> None:
    assert find_policy("least_kv").poll_interval_s == 0.1
    assert find_policy("filter_tree").poll_interval_s == 0.05
    kind = find_policy("least_kv@1s")
    assert (kind.name, kind.poll_interval_s) == ("least_kv@1s", 1.0)


@pytest.mark.parametrize("name", ["least_kv@", "least_kv@soon", "least_kv@0s"])
def test_a_wrong_poll_interval_is_refused(name: str) -> None:
    with pytest.raises(BenchmarkError, match="poll interval"):
        find_policy(name)


def test_the_limit_of_queueing_baselines_is_littles_law_at_the_bound(tmp_path: Path) -> None:
    made = plan(tmp_path)
    # Each server: bound / 2 requests/s, each there for 100 tokens * 50 ms.
    expected = round(made.bound_rps / 2 * 5.0)
    assert set(in_flight_limits(made).values()) == {expected}
