import math
from pathlib import Path

from benchmarks.overhead.goals import Goal
from benchmarks.overhead.results import Results


def results_of(rounds: dict[str, list[float]]) -> Results:
    results = Results()
    for system, values in rounds.items():
        for value in values:
            results.add("requests", system, {"per_s": value})
    return results


def test_a_median_leaves_out_what_is_no_number() -> None:
    results = results_of({"ours": [1.0, math.nan, 3.0, 100.0]})

    assert results.median("requests", "ours", "per_s") == 3.0
    assert results.spread("requests", "ours", "per_s") == (1.0, 100.0)


def test_what_was_not_measured_is_no_number() -> None:
    results = results_of({"ours": [1.0]})

    assert math.isnan(results.median("requests", "nginx", "per_s"))
    assert math.isnan(results.ratio("requests", "per_s", "ours", "nginx"))
    assert math.isnan(results.median("streams", "ours", "per_s"))


def test_ratios_are_taken_round_by_round() -> None:
    # The second round was disturbed for both.
    results = results_of({"ours": [10.0, 1.0, 12.0], "other": [20.0, 2.0, 20.0]})

    assert results.ratio("requests", "per_s", "ours", "other") == 0.5
    assert results.added("requests", "per_s", "ours", "other") == -8.0


def test_a_ratio_needs_both_systems_in_the_same_round() -> None:
    results = results_of({"ours": [math.nan, 10.0], "other": [1.0, 5.0]})

    assert results.ratio("requests", "per_s", "ours", "other") == 2.0


def test_results_are_read_back_as_written(tmp_path: Path) -> None:
    results = results_of({"ours": [1.0, 2.0]})
    results.versions["ours"] = "abc"
    results.write(tmp_path / "new" / "results.json")

    assert Results.read(tmp_path / "new" / "results.json") == results


def test_what_is_no_number_is_none_when_it_is_read_back(tmp_path: Path) -> None:
    results_of({"ours": [math.nan, 2.0]}).write(tmp_path / "results.json")

    assert Results.read(tmp_path / "results.json").values("requests", "ours", "per_s") == [2.0]


def test_a_goal_has_a_direction() -> None:
    def rate(results: Results) -> float:
        return results.median("requests", "ours", "per_s")

    measured = results_of({"ours": [6.0]})
    assert Goal("requests", rate, 5.0, at_least=True).holds(measured) is True
    assert Goal("requests", rate, 5.0).holds(measured) is False
    assert Goal("requests", rate, 5.0).holds(Results()) is None
