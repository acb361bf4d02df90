"""A forecast drawn towards the mean of what came out, as far as its variation meant little.

What a request will meet depends on arrivals to come, so that a forecast from the present state
reacts more than the outcome does. How much of a deviation of the forecast from its own mean comes
true is learned as the slope of a regression of log(actual) on log(forecast), between 0 and 1.
"""

from math import exp, log
from typing import Final

_LEAST_MEMORY_SAMPLES: Final = 200
_MEMORY_TURNOVERS: Final = 4
"""Outcomes of answers that overlap are nearly one: where many run, more of them are needed."""
_NEWEST_SHARE: Final = 2.0
"""Among few samples the newest count more: the first were taken while the server was filling."""
_PRIOR: Final = 0.5
"""Sum of squares, of logarithms, that the prior slope of 1 counts for: fifty samples of 10 %."""

_FARTHEST: Final = 1.0
"""Where a busy engine or gateway falls behind, whole answers arrive in one piece, with next to no
time per token: an outcome whose logarithm is farther off than this (a factor of 2.7) counts as one
that is so far off."""

_SURE_AFTER_CHANGE: Final = 19.0
"""Samples that the means count for after a change of speed: the next has a weight of a tenth."""


class BlendedForecast:
    """Follows means, variance and covariance of the logarithms over 200 samples and more."""

    __slots__ = ("_covariance", "_mean_actual", "_mean_raw", "_samples", "_variance", "_weight")

    def __init__(self) -> None:
        """Start with what is forecast."""
        self._samples = 0.0
        self._weight = 1.0
        self._mean_raw = 0.0
        self._mean_actual = 0.0
        self._variance = 0.0
        self._covariance = 0.0

    @property
    def slope(self) -> float:
        """The share of a deviation from the mean forecast that is believed, 0 to 1."""
        prior = _PRIOR * self._weight / (1.0 + self._weight)
        slope = (self._covariance + prior) / (self._variance + prior)
        return min(1.0, max(0.0, slope))

    def tell_s(self, raw_s: float) -> float:
        """What is to be expected where `raw_s`, > 0, is forecast."""
        return exp(self._expected(log(raw_s))) if self._samples else raw_s

    def learn(self, *, raw_s: float, actual_s: float, in_flight: int) -> None:
        """Take in one outcome; both times > 0, with so many requests on the server."""
        log_raw = log(raw_s)
        expected = self._expected(log_raw) if self._samples else log_raw
        log_actual = min(expected + _FARTHEST, max(expected - _FARTHEST, log(actual_s)))
        self._samples += 1.0
        memory = float(max(_LEAST_MEMORY_SAMPLES, _MEMORY_TURNOVERS * in_flight))
        self._weight = weight = max(1.0 / memory, _early_weight(self._samples))
        raw = log_raw - self._mean_raw
        actual = log_actual - self._mean_actual
        self._mean_raw += weight * raw
        self._mean_actual += weight * actual
        self._variance += weight * ((1.0 - weight) * raw * raw - self._variance)
        self._covariance += weight * ((1.0 - weight) * raw * actual - self._covariance)

    def rescale(self, factor: float) -> None:
        """The server has become slower by `factor`: forecasts and outcomes follow.

        How they vary around their means has to be learned anew.
        """
        self._mean_raw += log(factor)
        self._mean_actual += log(factor)
        self._samples = min(self._samples, _SURE_AFTER_CHANGE)
        self._weight = _early_weight(self._samples)
        self._variance = self._covariance = 0.0

    def _expected(self, log_raw: float) -> float:
        return self._mean_actual + self.slope * (log_raw - self._mean_raw)


def _early_weight(samples: float) -> float:
    return min(1.0, _NEWEST_SHARE / (samples + _NEWEST_SHARE - 1.0))
