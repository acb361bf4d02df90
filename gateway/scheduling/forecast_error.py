"""How far forecasts are off: a slow correction of their median, their spread, their error.

Errors of requests that overlap are alike, so fast corrections chase excursions that are over
before the next sample; the steps here shrink to a few thousandths per sample.
"""

from math import exp, log

from gateway.scheduling.miss_risk import steepness

_COVERED = 0.9
_FIRST_STEP = 0.05
_LAST_STEP = 0.003
_SLOWING_SAMPLES = 20.0
_ERROR_MEMORY = 0.02


class ForecastError:
    """Follows the logarithm of actual over forecast by stochastic approximation of quantiles.

    Attributes:
        bias: median of log(actual / raw forecast).
        spread: 90th percentile of the same, above the bias.
        relative: running mean of |forecast - actual| / actual.
        coverage: running share of actual times at or below their p90 forecast.
        samples: how many were learned.
        median_factor, p90_factor: what a raw forecast is multiplied with.
        steepness: of the chance to exceed a bound; see miss_risk.py.
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

    def learn(self, *, raw_s: float, forecast_s: float, p90_s: float, actual_s: float) -> None:
        """Take in one outcome; all times > 0. `raw_s` is the forecast before correction."""
        step = max(_LAST_STEP, _FIRST_STEP / (1.0 + self.samples / _SLOWING_SAMPLES))
        off = log(actual_s / raw_s)
        self.bias += step if off > self.bias else -step
        above = off - self.bias > self.spread
        self.spread = max(0.01, self.spread + step * (_COVERED if above else _COVERED - 1.0))
        weight = max(_ERROR_MEMORY, 1.0 / (1.0 + self.samples))
        self.relative += weight * (abs(forecast_s - actual_s) / actual_s - self.relative)
        self.coverage += weight * ((actual_s <= p90_s) - self.coverage)
        self.samples += 1
        self.median_factor = exp(self.bias)
        self.p90_factor = exp(self.bias + self.spread)
        self.steepness = steepness(self.spread)
