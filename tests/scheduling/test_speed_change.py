from math import log
from random import Random

import pytest

from gateway.scheduling.speed_change import SpeedChange


def answers(watch: SpeedChange, factors: list[float]) -> list[float]:
    found = [watch.factor(log(factor)) for factor in factors]
    return [factor for factor in found if factor is not None]


@pytest.mark.parametrize("factor", [2.0, 1.5, 0.5])
def test_a_change_of_speed_is_noticed_within_two_seconds(factor: float) -> None:
    rng, watch = Random(1), SpeedChange()
    assert not answers(watch, [rng.lognormvariate(0.0, 0.05) for _ in range(400)])
    found = answers(watch, [factor * rng.lognormvariate(0.0, 0.05) for _ in range(8)])
    assert found == [pytest.approx(factor, rel=0.1)]


def test_a_stall_or_a_burst_is_no_change() -> None:
    watch = SpeedChange()
    assert not answers(watch, ([1.0] * 6 + [1.8, 6.0, 1.8]) * 50)


def test_slow_drift_is_left_to_the_fit() -> None:
    assert not answers(SpeedChange(), [1.2] * 100)


def test_few_samples_say_nothing() -> None:
    assert not answers(SpeedChange(), [3.0] * 7)
