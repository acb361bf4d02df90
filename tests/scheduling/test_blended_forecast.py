from random import Random

import pytest

from gateway.scheduling.blended_forecast import BlendedForecast


def taught(*, slope: float, noise: float = 0.02, samples: int = 600) -> BlendedForecast:
    """Outcomes of 30 ms that follow a share of the forecasts' deviations from 20 ms."""
    blend, rng = BlendedForecast(), Random(1)
    for _ in range(samples):
        deviation = rng.lognormvariate(0.0, 0.2)
        actual_s = 0.03 * deviation**slope * rng.lognormvariate(0.0, noise)
        blend.learn(raw_s=0.02 * deviation, actual_s=actual_s, in_flight=10)
    return blend


def test_at_first_the_forecast_is_told() -> None:
    assert BlendedForecast().tell_s(0.02) == 0.02


@pytest.mark.parametrize("slope", [0.1, 0.5, 1.0])
def test_a_deviation_is_believed_as_far_as_it_came_true(slope: float) -> None:
    blend = taught(slope=slope)
    assert blend.slope == pytest.approx(slope, abs=0.1)
    assert blend.tell_s(0.02) == pytest.approx(0.03, rel=0.03)
    assert blend.tell_s(0.03) == pytest.approx(0.03 * 1.5**slope, rel=0.06)


@pytest.mark.parametrize(("slope", "told"), [(-0.5, 0.0), (3.0, 1.0)])
def test_a_forecast_is_never_turned_round_nor_exaggerated(slope: float, told: float) -> None:
    assert taught(slope=slope).slope == told


def test_few_samples_leave_the_slope_near_one() -> None:
    assert taught(slope=0.0, samples=5).slope > 0.6


def test_the_first_samples_soon_count_little() -> None:
    blend = taught(slope=1.0, samples=40)
    for _ in range(100):
        blend.learn(raw_s=0.02, actual_s=0.015, in_flight=10)
    assert blend.tell_s(0.02) == pytest.approx(0.015, rel=0.08)


def test_where_many_run_at_once_a_hundred_outcomes_alike_change_less() -> None:
    told_s = []
    for in_flight in (10, 500):
        blend = taught(slope=0.5, samples=3_000)
        for _ in range(100):
            blend.learn(raw_s=0.02, actual_s=0.04, in_flight=in_flight)
        told_s.append(blend.tell_s(0.02))
    assert told_s[0] > 0.033
    assert told_s[1] == pytest.approx(0.03, rel=0.05)


def test_answers_that_arrive_in_one_piece_do_not_pull_down_what_is_told() -> None:
    blend, rng = BlendedForecast(), Random(1)
    for number in range(300):
        in_one_piece = 1e-3 if number % 8 == 0 else 1.0
        actual_s = 0.005 * rng.lognormvariate(0.0, 0.4) * in_one_piece
        blend.learn(raw_s=0.007, actual_s=actual_s, in_flight=4)
    assert blend.tell_s(0.007) == pytest.approx(0.005, rel=0.2)


def test_a_first_answer_in_one_piece_is_soon_forgotten() -> None:
    blend = BlendedForecast()
    blend.learn(raw_s=0.012, actual_s=1e-5, in_flight=1)
    for _ in range(4):
        blend.learn(raw_s=0.012, actual_s=0.005, in_flight=1)
    assert blend.tell_s(0.012) == pytest.approx(0.005, rel=0.2)


@pytest.mark.parametrize("actual_s", [0.0005, 0.3])
def test_a_server_far_from_the_prior_is_told_right_after_eight_answers(actual_s: float) -> None:
    blend = BlendedForecast()
    for _ in range(8):
        blend.learn(raw_s=0.012, actual_s=actual_s, in_flight=1)
    assert blend.tell_s(0.012) == pytest.approx(actual_s, rel=0.2)


def test_a_change_of_speed_moves_what_is_told() -> None:
    blend = taught(slope=0.2)
    blend.rescale(2.0)
    assert blend.tell_s(0.04) == pytest.approx(0.06, rel=0.03)
    assert blend.slope == 1.0
