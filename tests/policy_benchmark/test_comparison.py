import pytest

from gateway.policy_benchmark.comparison import comparisons, paired_difference
from gateway.policy_benchmark.run_result import RunResult


def run(policy: str, seed: int, blocks: list[list[int]]) -> RunResult:
    return {
        "workload": "w",
        "profile": "p",
        "servers": 1,
        "load": 0.9,
        "policy": policy,
        "seed": seed,
        "blocks": blocks,
    }


def test_the_interval_is_students_on_the_blocks_differences() -> None:
    ours = [run("gateway", 1, [[10, 9], [10, 8]]), run("gateway", 2, [[10, 10]])]
    theirs = [run("x", 1, [[10, 8], [10, 6]]), run("x", 2, [[10, 7]])]
    # Differences .1, .2, .3: mean .2, s = .1, t(2) = 4.30, half = 4.30 * .1 / sqrt(3) = .248
    found = paired_difference(ours, theirs)
    assert found["mean"] == pytest.approx(0.2)
    assert found["low"] == pytest.approx(0.2 - 0.2483, abs=1e-3)
    assert found["blocks"] == 3


def test_ours_is_compared_with_every_other_policy_on_the_same_arrivals() -> None:
    runs = [
        run("gateway", 1, [[10, 9], [10, 9]]),
        run("b", 1, [[10, 5], [10, 4]]),
        run("a", 1, [[10, 9], [10, 9]]),
    ]
    assert [(row["against"], row["load"]) for row in comparisons(runs, "gateway")] == [
        ("a", 0.9),
        ("b", 0.9),
    ]


def test_runs_on_other_arrivals_are_not_compared() -> None:
    runs = [run("gateway", 1, [[10, 9]]), run("b", 2, [[10, 5]]), run("c", 1, [[11, 5]])]
    assert comparisons(runs, "gateway") == []


def test_one_block_gives_no_interval() -> None:
    found = paired_difference([run("gateway", 1, [[10, 9]])], [run("x", 1, [[10, 8]])])
    assert found["mean"] == pytest.approx(0.1)
    assert found["low"] is None
