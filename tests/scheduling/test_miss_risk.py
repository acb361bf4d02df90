from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.miss_risk import exceeding, miss_probability, steepness
from tests.builders import make_prediction, make_tracked
from tests.scheduling.picker_scenes import objective_request


def chance(
    *, ttft_s: float = 0.1, tpot_s: float = 0.01, bound_tpot_s: float | None = 0.05, now: float = 0
) -> float:
    return miss_probability(
        objective_request(tpot_s=bound_tpot_s),
        make_prediction(ttft_s=ttft_s, tpot_s=tpot_s),
        now=now,
    )


def test_a_forecast_at_the_bound_is_missed_half_of_the_time() -> None:
    assert chance(ttft_s=1.0, bound_tpot_s=None) == pytest.approx(0.5)


def test_a_90th_percentile_at_the_bound_is_missed_one_time_in_ten() -> None:
    assert chance(ttft_s=0.5, bound_tpot_s=None) == pytest.approx(0.1, abs=0.01)


def test_either_bound_can_be_missed() -> None:
    assert chance(ttft_s=1.0, tpot_s=0.05) == pytest.approx(0.75)


def test_waiting_raises_the_chance_of_a_miss_until_it_is_certain() -> None:
    chances = [chance(ttft_s=0.3, now=now) for now in (0.0, 0.4, 0.8, 1.0, 5.0)]
    assert chances == sorted(chances)
    assert chances[0] < 0.1
    assert chances[-2:] == [1.0, 1.0]


def test_without_an_objective_nothing_is_missed() -> None:
    assert miss_probability(make_tracked(), make_prediction(ttft_s=99.0), now=999.0) == 0.0


def test_forecasts_beyond_all_bounds_are_certain_either_way() -> None:
    assert chance(ttft_s=1e-9, tpot_s=1e-9) == pytest.approx(0.0, abs=1e-12)
    assert chance(ttft_s=1e9, tpot_s=1e9) == pytest.approx(1.0)


@given(ratio=st.floats(1e-9, 1e9), spread=st.floats(0.01, 3.0))
def test_the_shortcuts_of_the_logistic_function_change_nothing_that_matters(
    ratio: float, spread: float
) -> None:
    z = 1.702 * log(ratio) * 1.2816 / spread
    exact = 1.0 / (1.0 + exp(-max(-700.0, min(700.0, z))))
    assert exceeding(ratio, steepness(spread)) == pytest.approx(exact, abs=1e-5)
