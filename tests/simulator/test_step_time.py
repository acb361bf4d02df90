"""Noise, and the variants' terms that the linear formula lacks."""

from dataclasses import replace
from random import Random
from statistics import fmean, stdev

import pytest

from gateway.simulator.engine import EngineOptions, EngineVariant
from gateway.simulator.step_time import StepTime
from tests.simulator.engine_builders import (
    PLAIN,
    QUIET,
    ends,
    first_tokens,
    make_engine,
    make_request,
    run_until_idle,
)


def test_noise_has_mean_one_and_the_chosen_spread() -> None:
    times = StepTime(PLAIN, EngineOptions(noise_sigma=0.04), Random(3))
    draws = [times.elapsed(1.0, 0.0, 0.0) for _ in range(20_000)]
    assert fmean(draws) == pytest.approx(1.0, abs=0.002)
    assert stdev(draws) == pytest.approx(0.04, rel=0.05)


def test_without_noise_the_random_source_is_not_touched() -> None:
    rng = Random(3)
    StepTime(PLAIN, QUIET, rng).elapsed(1.0, 0.0, 0.0)
    assert rng.random() == Random(3).random()


def test_superlinear_batch_cost_grows_with_the_square() -> None:
    plain = StepTime(PLAIN, QUIET, Random(1))
    steep = StepTime(PLAIN, _with(EngineVariant(batch_square_s=1e-6)), Random(1))
    assert steep.decode(100, 0, 0) - plain.decode(100, 0, 0) == pytest.approx(0.01)


def test_a_step_across_a_period_boundary_stalls_for_200_ms() -> None:
    times = StepTime(PLAIN, _with(EngineVariant(stall_every_s=5.0)), Random(1))
    assert times.elapsed(0.01, 0.0, 4.98) == pytest.approx(0.01)
    assert times.elapsed(0.01, 0.0, 4.995) == pytest.approx(0.21)


def test_speculative_decoding_yields_two_tokens_a_step_on_average() -> None:
    engine = make_engine(_with(EngineVariant(speculative_tokens=3)))
    engine.submit(make_request("r", prompt=16, output=2001), now=0.0)
    events = run_until_idle(engine)
    assert engine.stats.steps == pytest.approx(1000, rel=0.05)
    assert engine.stats.generated_tokens == 2001
    assert ends(events)["r"] > first_tokens(events)["r"]


def _with(variant: EngineVariant) -> EngineOptions:
    return replace(QUIET, variant=variant)
