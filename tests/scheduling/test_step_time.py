"""Whether the fits find what engines cost, from what their streams show."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.step_time import DecodeFit, PrefillFit, StepTimePrior

PRIOR = StepTimePrior()
DECODE = (PRIOR.step_s, PRIOR.per_sequence_s, PRIOR.per_context_token_s)
PREFILL = (PRIOR.overhead_s, PRIOR.per_prefill_token_s)
ENGINES = {
    "fast": (0.005, 20e-6, 30e-9),
    "like the prior": DECODE,
    "slow": (0.030, 150e-6, 300e-9),
}
TYPICAL_LOADS = ((4, 2_000), (16, 12_000), (64, 40_000), (128, 100_000))


def step_of(engine: tuple[float, float, float], sequences: float, context: float) -> float:
    return engine[0] + engine[1] * sequences + engine[2] * context


def teach(
    fit: DecodeFit,
    engine: tuple[float, float, float],
    *,
    samples: int,
    noise: float = 0.03,
    seed: int = 1,
) -> None:
    """Intervals of a server whose load wanders between few and many, short and long streams."""
    rng = Random(seed)
    for _ in range(samples):
        sequences = rng.uniform(1.0, 150.0)
        context = sequences * rng.uniform(200.0, 1_500.0)
        step_s = step_of(engine, sequences, context) * rng.lognormvariate(0.0, noise)
        fit.learn(sequences=sequences, context_tokens=context, step_s=step_s)


def worst_error(fit: DecodeFit, engine: tuple[float, float, float]) -> float:
    """Largest relative error of a step's forecast over typical loads."""
    return max(abs(fit.predict(*load) / step_of(engine, *load) - 1.0) for load in TYPICAL_LOADS)


@pytest.mark.parametrize(("name", "error"), [("fast", 0.03), ("like the prior", 0.03)])
def test_the_cost_of_steps_is_found_term_by_term(name: str, error: float) -> None:
    fit, engine = DecodeFit(DECODE), ENGINES[name]
    teach(fit, engine, samples=300)
    assert worst_error(fit, engine) < error
    assert fit.coefficients() == pytest.approx(engine, rel=0.1)
    assert fit.samples == 300


def test_far_from_the_prior_the_sum_of_the_terms_is_found() -> None:
    """The prior's ratios pull, so that single terms may be off; the forecast is not."""
    fit, engine = DecodeFit(DECODE), ENGINES["slow"]
    teach(fit, engine, samples=300)
    assert worst_error(fit, engine) < 0.1
    assert fit.step_s == pytest.approx(engine[0], rel=0.12)


def test_ten_seconds_of_reports_are_enough_for_a_new_engine() -> None:
    fit = DecodeFit(DECODE)
    teach(fit, ENGINES["slow"], samples=40)
    assert worst_error(fit, ENGINES["slow"]) < 0.15


def test_a_server_of_half_the_speed_is_followed() -> None:
    """Most of the way after half a minute of reports, all of it after a minute."""
    fit = DecodeFit(DECODE)
    teach(fit, DECODE, samples=2_000)
    halved = (2 * DECODE[0], 2 * DECODE[1], 2 * DECODE[2])
    assert worst_error(fit, halved) > 0.45
    teach(fit, halved, samples=120, seed=2)
    assert worst_error(fit, halved) < 0.27
    teach(fit, halved, samples=120, seed=3)
    assert worst_error(fit, halved) < 0.1


def test_a_constant_load_is_forecast_well_though_it_tells_no_terms_apart() -> None:
    fit, engine = DecodeFit(DECODE), ENGINES["slow"]
    for _ in range(200):
        fit.learn(sequences=40.0, context_tokens=30_000.0, step_s=step_of(engine, 40.0, 30_000.0))
    assert fit.predict(40.0, 30_000.0) == pytest.approx(step_of(engine, 40.0, 30_000.0), rel=0.02)
    # Twice the load is not forecast as the same step, nor as much more than twice as long.
    longer = fit.predict(80.0, 60_000.0) / fit.predict(40.0, 30_000.0)
    assert 1.0 < longer < 2.0


def test_a_fit_starts_at_its_prior() -> None:
    assert DecodeFit(DECODE).coefficients() == DECODE
    assert (PrefillFit(PREFILL).overhead_s, PrefillFit(PREFILL).per_token_s) == PREFILL


def within(values: tuple[float, ...], prior: tuple[float, ...]) -> bool:
    return all(
        0.019 * before <= value <= 51 * before for value, before in zip(values, prior, strict=True)
    )


positive = st.floats(1e-6, 1e3)


@given(
    samples=st.lists(
        st.tuples(st.floats(0.0, 1e4), st.floats(0.0, 1e7), positive), min_size=1, max_size=60
    )
)
def test_no_history_makes_the_cost_of_steps_absurd(
    samples: list[tuple[float, float, float]],
) -> None:
    fit = DecodeFit(DECODE)
    for sequences, context, step_s in samples:
        fit.learn(sequences=sequences, context_tokens=context, step_s=step_s)
        assert within(fit.coefficients(), DECODE)


@given(
    samples=st.lists(
        st.tuples(st.floats(0.0, 1e6), st.floats(-1e3, 1e3), positive), min_size=1, max_size=60
    )
)
def test_no_history_makes_the_cost_of_prefills_absurd(
    samples: list[tuple[float, float, float]],
) -> None:
    fit = PrefillFit(PREFILL)
    for tokens, seconds, measured_s in samples:
        fit.learn(tokens=tokens, seconds=seconds, measured_s=measured_s)
        assert within((fit.overhead_s, fit.per_token_s), PREFILL)


def teach_prefills(
    fit: PrefillFit,
    prefill_s: Callable[[float], float],
    *,
    samples: int,
    shortest: int = 100,
    seed: int = 1,
) -> None:
    rng = Random(seed)
    for _ in range(samples):
        tokens = rng.uniform(shortest, 4_000)
        seconds = prefill_s(tokens) * rng.lognormvariate(0.0, 0.03)
        stepping_s = rng.uniform(0.0, 0.02)
        fit.learn(tokens=tokens, seconds=seconds, measured_s=seconds + stepping_s)


@pytest.mark.parametrize("per_token_s", [10e-6, 40e-6, 300e-6])
def test_the_cost_of_prefills_is_found(per_token_s: float) -> None:
    fit = PrefillFit(PREFILL)
    teach_prefills(fit, lambda tokens: 0.015 + per_token_s * tokens, samples=300)
    assert fit.per_token_s == pytest.approx(per_token_s, rel=0.1)
    for tokens in (1_000, 4_000):
        found_s = fit.overhead_s + fit.per_token_s * tokens
        assert found_s == pytest.approx(0.015 + per_token_s * tokens, rel=0.07)
    assert fit.samples == 300


def test_prefills_of_half_the_speed_are_followed() -> None:
    fit = PrefillFit(PREFILL)
    teach_prefills(fit, lambda tokens: 0.010 + 50e-6 * tokens, samples=1_000)
    teach_prefills(fit, lambda tokens: 0.010 + 100e-6 * tokens, samples=150, seed=2)
    assert fit.per_token_s == pytest.approx(100e-6, rel=0.12)
