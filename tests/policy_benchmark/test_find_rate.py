import pytest

from gateway.policy_benchmark.find_rate import highest_load


@pytest.mark.parametrize("edge", [0.03, 0.31, 0.5, 0.93, 1.7, 6.0])
def test_the_edge_is_found_within_the_tolerance_from_below(edge: float) -> None:
    found = highest_load(lambda load: 1.0 if load <= edge else 0.0, 0.99)
    assert found is not None
    assert edge * 0.99 <= found <= edge


def test_a_policy_that_never_attains_the_target_has_no_rate() -> None:
    assert highest_load(lambda _: 0.5, 0.99) is None


def test_a_policy_that_always_attains_it_stops_at_the_end_of_the_range() -> None:
    assert highest_load(lambda _: 1.0, 0.99) == 8.0


def test_few_runs_are_enough() -> None:
    asked: list[float] = []

    def attainment_at(load: float) -> float:
        asked.append(load)
        return 1.0 if load <= 0.77 else 0.9

    highest_load(attainment_at, 0.99)
    assert len(asked) <= 13


def test_a_rate_above_one_at_which_the_policy_fails_is_not_taken() -> None:
    def metastable(load: float) -> float:
        return 0.0 if 0.3 < load < 0.42 or load > 0.5 else 1.0

    found = highest_load(metastable, 0.99)
    assert found is not None
    assert 0.295 < found <= 0.3


def test_no_load_is_tried_twice() -> None:
    asked: list[float] = []

    def attainment_at(load: float) -> float:
        asked.append(load)
        return 0.0 if 0.3 < load < 0.42 else float(load < 0.5)

    highest_load(attainment_at, 0.99)
    assert len(asked) == len(set(asked))
