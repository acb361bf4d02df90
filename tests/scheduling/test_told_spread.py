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
        within = actual <= spread.p90_factor(requests)
        spread.learn(requests=requests, held=within, under_way=200)
        held[requests].append(within)
    return {load: sum(each[-400:]) / 400 for load, each in held.items()}


def test_at_first_the_prior_holds_at_every_load() -> None:
    spread = ToldSpread(0.4)
    assert log(spread.p90_factor(0)) == log(spread.p90_factor(100)) == pytest.approx(0.4)


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.5])
def test_nine_of_ten_come_to_be_within_the_p90(sigma: float) -> None:
    spread = ToldSpread(0.4)
    held = run(spread, Random(1), outcomes=1_500, quiet=sigma, busy=sigma)
    assert sum(held.values()) / 2 == pytest.approx(0.9, abs=0.02)


def test_they_are_at_low_load_as_at_high() -> None:
    held = run(ToldSpread(0.4), Random(2), outcomes=2_000, quiet=0.03, busy=0.3)
    assert held[5] == pytest.approx(0.9, abs=0.04)
    assert held[50] == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize(("held", "bound"), [(True, 0.01), (False, 1.5)])
def test_a_p90_is_never_below_the_mean_nor_absurd(held: bool, bound: float) -> None:  # noqa: FBT001
    spread = ToldSpread(0.4)
    for _ in range(3_000):
        spread.note_load(5)
        spread.learn(requests=5, held=held, under_way=1)
    assert log(spread.p90_factor(5)) == pytest.approx(bound)


def test_while_more_is_under_way_each_outcome_moves_less() -> None:
    moved = []
    for under_way in (200, 2_000):
        spread = ToldSpread(0.4)
        run(spread, Random(3), outcomes=500)
        before = spread.p90_factor(50)
        spread.learn(requests=50, held=False, under_way=under_way)
        moved.append(spread.p90_factor(50) / before)
    assert moved[0] > moved[1] > 1.0
