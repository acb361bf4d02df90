from math import exp, log
from random import Random

import pytest

from gateway.scheduling.forecast_error import ForecastError
from gateway.scheduling.miss_risk import steepness


def taught(*, median: float, sigma: float, samples: int, seed: int = 1) -> ForecastError:
    """An error that saw actual times of a lognormal ratio to the raw forecasts."""
    error, rng = ForecastError(bias=0.0, spread=0.4), Random(seed)
    for _ in range(samples):
        raw_s = rng.uniform(0.01, 2.0)
        error.learn(
            raw_s=raw_s,
            forecast_s=raw_s * error.median_factor,
            p90_s=raw_s * error.p90_factor,
            actual_s=raw_s * median * rng.lognormvariate(0.0, sigma),
        )
    return error


@pytest.mark.parametrize("median", [0.6, 1.0, 1.5])
@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.6])
def test_median_and_90th_percentile_of_lognormal_errors_are_found(
    median: float, sigma: float
) -> None:
    error = taught(median=median, sigma=sigma, samples=2_000)
    assert error.median_factor == pytest.approx(median, rel=0.08)
    assert error.p90_factor == pytest.approx(median * exp(1.2816 * sigma), rel=0.12)
    assert error.coverage == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("sigma", [0.1, 0.6])
def test_nine_of_ten_are_within_their_90th_percentile(sigma: float) -> None:
    error, rng = taught(median=1.3, sigma=sigma, samples=2_000), Random(2)
    within = [1.3 * rng.lognormvariate(0.0, sigma) <= error.p90_factor for _ in range(5_000)]
    assert sum(within) / len(within) == pytest.approx(0.9, abs=0.025)


def test_a_hundred_samples_remove_most_of_a_wrong_prior() -> None:
    error = taught(median=2.0, sigma=0.2, samples=100)
    assert error.median_factor == pytest.approx(2.0, rel=0.15)


def test_one_outlier_moves_hardly_anything() -> None:
    error = taught(median=1.0, sigma=0.2, samples=1_000)
    before = error.median_factor, error.p90_factor
    error.learn(raw_s=1.0, forecast_s=1.0, p90_s=1.3, actual_s=1_000.0)
    assert (error.median_factor, error.p90_factor) == pytest.approx(before, rel=0.02)


def test_a_server_that_slows_down_is_followed() -> None:
    error = taught(median=1.0, sigma=0.1, samples=500)
    for _ in range(500):
        error.learn(raw_s=1.0, forecast_s=1.0, p90_s=1.2, actual_s=1.5)
    assert error.median_factor == pytest.approx(1.5, rel=0.05)


def test_exact_forecasts_still_leave_a_90th_percentile_above_the_median() -> None:
    error = taught(median=1.0, sigma=0.0, samples=2_000)
    assert log(error.p90_factor / error.median_factor) >= 0.0099


def test_the_relative_error_is_told_of_the_forecasts_as_given() -> None:
    error = ForecastError(bias=0.0, spread=0.4)
    error.learn(raw_s=1.0, forecast_s=1.5, p90_s=2.0, actual_s=1.0)
    assert error.relative == pytest.approx(0.5)
    for _ in range(300):
        error.learn(raw_s=1.0, forecast_s=0.9, p90_s=2.0, actual_s=1.0)
    assert error.relative == pytest.approx(0.1, abs=0.01)
    assert error.samples == 301
    assert error.coverage == pytest.approx(1.0, abs=0.01)


def test_trust_grows_with_samples_and_falls_with_the_error() -> None:
    unknown = ForecastError(bias=0.0, spread=0.4)
    few, many = (taught(median=1.0, sigma=0.1, samples=n) for n in (20, 400))
    bad = ForecastError(bias=0.0, spread=0.4)
    for _ in range(400):
        bad.judge(forecast_s=2.1, p90_s=3.0, actual_s=1.0)
    hopeless = ForecastError(bias=0.0, spread=0.4)
    for _ in range(400):
        hopeless.judge(forecast_s=9.0, p90_s=9.0, actual_s=1.0)
    assert (unknown.trust, hopeless.trust) == (0.0, 0.0)
    assert 0.45 < few.trust < 0.55
    assert many.trust > 0.9
    assert 0.3 < bad.trust < 0.5


def test_one_answer_that_arrives_in_one_piece_costs_hardly_any_trust() -> None:
    error = taught(median=1.0, sigma=0.1, samples=400)
    before = error.trust
    error.learn(raw_s=0.01, forecast_s=0.01, p90_s=0.02, actual_s=1e-5)
    assert error.trust == pytest.approx(before, abs=0.07)


def test_decisions_fear_misses_far_from_a_bound_though_forecasts_were_sharp() -> None:
    sharp, vague = (taught(median=1.0, sigma=sigma, samples=2_000) for sigma in (0.02, 0.6))
    assert log(sharp.p90_factor / sharp.median_factor) < 0.1
    assert sharp.steepness == steepness(0.3)
    assert vague.steepness < sharp.steepness
