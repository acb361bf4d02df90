"""How far forecasts are off: a slow correction of their median, their spread, their error.

Errors of requests that overlap are alike, so fast corrections chase excursions that are over
before the next sample; the steps here shrink to a few thousandths per sample.
"""

from math import exp, log
from typing import Final

from gateway.scheduling.miss_risk import steepness

_COVERED: Final = 0.9
_FIRST_STEP: Final = 0.05
_LAST_STEP: Final = 0.002
_SLOWING_SAMPLES: Final = 20.0
_FIRST_GROWTH: Final = 0.3
_LAST_GROWTH: Final = 0.04
_GROWTH_SLOWING_SAMPLES: Final = 10.0
_LEAST_SPREAD: Final = 0.01
_LARGEST_SPREAD: Final = 1.5
_LEAST_DECIDING_SPREAD: Final = 0.3
"""Where misses are feared only close to a bound, nothing keeps servers alike far from it: they
drift apart, and forecasts with them."""
_ERROR_MEMORY: Final = 0.02
_UNSURE_SAMPLES: Final = 20.0
_GOOD_ERROR: Final = 0.5
_USELESS_ERROR: Final = 1.5
_LARGEST_ERROR: Final = 3.0
"""An answer that arrives in one piece has next to no time per token, and would alone make all
forecasts useless for the next hundred."""


class ForecastError:
    """Follows the logarithm of actual over forecast by stochastic approximation of quantiles.

    Attributes:
        bias: median of log(actual / raw forecast).
        spread: from there to the 90th percentile, set so that nine of ten outcomes are within
            the p90 as it was forecast (Gibbs and Candes, adaptive conformal inference, 2021).
        relative: running mean of |forecast - actual| / actual, each at most 3.
        coverage: running share of actual times at or below their p90 forecast.
        samples: how many were judged.
        median_factor, p90_factor: what a raw forecast is multiplied with.
        steepness: of the chance to exceed a bound, for decisions; see miss_risk.py.
    """

    __slots__ = (
        "bias",
        "coverage",
        "median_factor",
        "p90_factor",
        "relative",
        "samples",
        "spread",
        "steepness",
    )

    def __init__(self, *, bias: float, spread: float) -> None:
        """Start from a prior."""
        self.bias = bias
        self.spread = spread
        self.relative = 0.0
        self.coverage = _COVERED
        self.samples = 0
        self.median_factor = exp(bias)
        self.p90_factor = exp(bias + spread)
        self.steepness = steepness(spread)

    @property
    def trust(self) -> float:
        """How far to go by these forecasts: 0 without samples or far off, 1 if many and good."""
        known = self.samples / (self.samples + _UNSURE_SAMPLES)
        good = (_USELESS_ERROR - self.relative) / (_USELESS_ERROR - _GOOD_ERROR)
        return known * min(1.0, max(0.0, good))

    def judge(self, *, forecast_s: float, p90_s: float, actual_s: float) -> None:
        """Count one outcome without learning from it; all times > 0."""
        weight = max(_ERROR_MEMORY, 1.0 / (1.0 + self.samples))
        error = min(_LARGEST_ERROR, abs(forecast_s - actual_s) / actual_s)
        self.relative += weight * (error - self.relative)
        self.coverage += weight * ((actual_s <= p90_s) - self.coverage)
        self.samples += 1

    def learn(self, *, raw_s: float, forecast_s: float, p90_s: float, actual_s: float) -> None:
        """Take in one outcome; all times > 0. `raw_s` is the forecast before correction."""
        step = max(_LAST_STEP, _FIRST_STEP / (1.0 + self.samples / _SLOWING_SAMPLES))
        off = log(actual_s / raw_s)
        self.bias += step if off > self.bias else -step
        growth = max(_LAST_GROWTH, _FIRST_GROWTH / (1.0 + self.samples / _GROWTH_SLOWING_SAMPLES))
        change = _COVERED if actual_s > p90_s else _COVERED - 1.0
        spread = self.spread * (1.0 + growth * change)
        self.spread = min(_LARGEST_SPREAD, max(_LEAST_SPREAD, spread))
        self.median_factor = exp(self.bias)
        self.p90_factor = exp(self.bias + self.spread)
        self.steepness = steepness(max(_LEAST_DECIDING_SPREAD, self.spread))
        self.judge(forecast_s=forecast_s, p90_s=p90_s, actual_s=actual_s)
