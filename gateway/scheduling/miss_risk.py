"""How likely a time exceeds its bound, given its forecast.

The time is taken for lognormal around its median. `spread` is the logarithm of p90 over median,
1.2816 standard deviations. The normal distribution is replaced by the logistic function of 1.702
times its argument, which is within .01 of it, so that with `steepness = 1.702 * 1.2816 / spread`
the probability is `1 / (1 + (bound / median) ** steepness)`.
"""

from math import exp, log
from typing import Final

from gateway.scheduling.prediction import Prediction
from gateway.scheduling.tracked_request import TrackedRequest

_P90_SIGMAS: Final = 1.2816
_LOGISTIC: Final = 1.702
_FAR: Final = 12.0
"""Beyond this argument the logistic function is 0 or 1 within 1e-5."""


def steepness(spread: float) -> float:
    """From the logarithm of p90 over median, > 0."""
    return _LOGISTIC * _P90_SIGMAS / spread


def exceeding(ratio: float, steepness: float) -> float:
    """Probability that a time whose median is `ratio` of its bound, > 0, is above it."""
    if steepness * (1.0 - ratio) > _FAR:  # log(ratio) is less still
        return 0.0
    z = steepness * log(ratio)
    if z < -_FAR:
        return 0.0
    if z > _FAR:
        return 1.0
    return 1.0 / (1.0 + exp(-z))


def miss_probability(tracked: TrackedRequest, prediction: Prediction, *, now: float) -> float:
    """Probability that a request dispatched now misses its service's objective."""
    if tracked.service.objective is None:
        return 0.0
    budget_s = tracked.ttft_bound_s - (now - tracked.arrived_at)
    if budget_s <= 0.0:
        return 1.0
    late = exceeding(prediction.ttft_s / budget_s, prediction.ttft_steepness)
    if tracked.tpot_bound_s is None:
        return late
    slow = exceeding(prediction.tpot_s / tracked.tpot_bound_s, prediction.tpot_steepness)
    return 1.0 - (1.0 - late) * (1.0 - slow)
