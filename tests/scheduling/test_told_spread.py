from math import log
from random import Random

import pytest

from gateway.scheduling.told_spread import ToldSpread


def run(
    spread: ToldSpread, rng: Random, *, outcomes: int, quiet: float = 0.1, busy: float = 0.1
) -> dict[int, float]:
    """Share within the p90 by load, of times that vary by so much (logarithm, one sigma)."""
    held: dict[int, list[bool]] = {5: [], 50: []}
    for _ in range(outcomes):
        requests = rng.choice((5, 50))
        spread.note_load(requests)
        actual = rng.lognormvariate(0.0, quiet if requests == 5 else busy)
        held[requests].append(actual <= spread.p90_factor(requests))
        spread.learn(requests=requests, off=log(actual), under_way=200)
    return {load: sum(each[-800:]) / 800 for load, each in held.items()}


def told(spread: ToldSpread, requests: int = 5) -> float:
    return log(spread.p90_factor(requests))


def test_at_first_the_prior_holds_at_every_load() -> None:
    spread = ToldSpread(0.4)
    assert told(spread, 0) == told(spread, 100) == pytest.approx(0.4)


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.5])
def test_nine_of_ten_come_to_be_within_the_p90(sigma: float) -> None:
    held = run(ToldSpread(0.4), Random(1), outcomes=3_000, quiet=sigma, busy=sigma)
    assert sum(held.values()) / 2 == pytest.approx(0.9, abs=0.02)


def test_they_are_at_low_load_as_at_high() -> None:
    held = run(ToldSpread(0.4), Random(2), outcomes=8_000, quiet=0.05, busy=0.2)
    assert held[5] == pytest.approx(0.9, abs=0.04)
    assert held[50] == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize(("off", "bound"), [(0.0, 0.01), (9.0, 1.5)])
def test_a_p90_is_never_below_the_mean_nor_absurd(off: float, bound: float) -> None:
    spread = ToldSpread(0.4)
    for _ in range(3_000):
        spread.note_load(5)
        spread.learn(requests=5, off=off, under_way=1)
    assert told(spread) == pytest.approx(bound)


@pytest.mark.parametrize("late", [True, False])
def test_outcomes_of_one_moment_are_not_taken_for_many(late: bool) -> None:  # noqa: FBT001
    spread = ToldSpread(0.4)
    run(spread, Random(3), outcomes=3_000)
    before = told(spread)
    for _ in range(200):
        spread.learn(requests=50, off=1.5 * before if late else 0.0, under_way=2_000)
    assert told(spread) == pytest.approx(before, rel=0.1)


def test_what_was_off_at_first_is_soon_forgotten() -> None:
    spread, rng = ToldSpread(0.4), Random(4)
    for _ in range(300):
        spread.learn(requests=50, off=rng.gauss(0.0, 0.5), under_way=200)
    run(spread, rng, outcomes=600, quiet=0.05, busy=0.05)
    assert told(spread, 50) < 0.12


def test_one_absurd_outcome_changes_little() -> None:
    spread = ToldSpread(0.4)
    run(spread, Random(5), outcomes=3_000)
    before = told(spread)
    spread.learn(requests=50, off=9.0, under_way=200)
    assert told(spread) < 1.02 * before
