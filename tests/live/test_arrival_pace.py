"""A steady load keeps its share of the places, whatever time the servers take."""

from bisect import insort
from collections.abc import Callable
from random import Random

import pytest

from benchmarks.live.arrival_pace import ArrivalPace

PLACES = 24
LOOK_S = 2.0
MINUTES = 30


def share_in_use(time_in_place_s: Callable[[float], float], *, wanted: float, seed: int) -> float:
    """Mean share of the places over the last two thirds of half an hour of Poisson arrivals."""
    rng = Random(seed)
    pace = ArrivalPace(wanted=wanted * PLACES, time_in_place_s=0.7)
    now = arrives_at = 0.0
    ends: list[float] = []
    waiting = 0
    shares = []
    while now < MINUTES * 60:
        looks_at = now + LOOK_S
        ended = 0
        while min([arrives_at, *ends[:1]]) < looks_at:
            if ends and ends[0] <= arrives_at:
                now = ends.pop(0)
                ended += 1
            else:
                now = arrives_at
                waiting += 1
                arrives_at += rng.expovariate(pace.rate)
            while waiting and len(ends) < PLACES:
                waiting -= 1
                insort(ends, now + rng.expovariate(1.0 / time_in_place_s(now)))
        now = looks_at
        pace.observe(in_use=len(ends), ended=ended, seconds=LOOK_S)
        shares.append(len(ends) / PLACES)
    judged = shares[len(shares) // 3 :]
    return sum(judged) / len(judged)


@pytest.mark.parametrize(
    "time_in_place_s",
    [
        pytest.param(lambda now: 0.7, id="as-guessed"),
        pytest.param(lambda now: 0.2, id="fast"),
        pytest.param(lambda now: 2.0, id="slow"),
        pytest.param(lambda now: 1.0 + (now // 300) % 2, id="busy-every-other-five-minutes"),
    ],
)
def test_the_share_of_places_in_use_is_the_wanted_one(
    time_in_place_s: Callable[[float], float],
) -> None:
    assert 0.77 <= share_in_use(time_in_place_s, wanted=0.8, seed=1) <= 0.85


def test_another_share_can_be_wanted() -> None:
    assert 0.37 <= share_in_use(lambda now: 0.7, wanted=0.4, seed=1) <= 0.43
