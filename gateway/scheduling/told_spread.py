"""How wide the p90 of what is told of TPOT has to be, by the load of the server.

Answers that overlap are slowed by the same crowd, so that their outcomes are nearly one: whether
the p90 held for the last hundred of them says little, and to follow that makes the spread swing.
It is taken from how far outcomes are off on average, as one sample for each turnover of the
requests under way. All servers of a pool share it: one has too few outcomes for it.
"""

from math import exp, log, sqrt
from typing import Final

_P90_OF_MEAN_DEVIATION: Final = 1.606
"""The 90th percentile of a normal distribution over its mean absolute deviation."""
_LATE, _EARLY = 4.0 / 3.0, 2.0 / 3.0
"""Outcomes are not spread evenly: those above what was told count twice as much as those below."""
_MOST_AT_ONCE: Final = 4.0
"""An outcome that is farther off, in spreads, counts as one that is so far off."""
_WEIGHT_OF_TURNOVER: Final = 0.375
_EARLY_WEIGHT: Final = 3.0
_PRIOR_TURNOVERS: Final = 0.7
"""The first outcomes are forgotten soon: forecasts were poor, and the pool was filling."""
_FEWEST_UNDER_WAY: Final = 30
_TILT_GROWTH: Final = 0.15
_LEAST, _MOST = 0.01, 1.5
_MOST_TILT: Final = 1.0
_FARTHEST: Final = 2.5
_LOAD_MEMORY: Final = 0.005
_LEAST_VARIANCE: Final = 0.0025


class ToldSpread:
    """The logarithm of p90 over what is told: `spread * exp(tilt * z)`.

    z is the logarithm of the requests on the server against their mean, in standard deviations.
    """

    __slots__ = ("_load_mean", "_load_variance", "_loads", "_spread", "_tilt", "_turnovers")

    def __init__(self, spread: float) -> None:
        """Start from `spread`, > 0, at every load."""
        self._spread = spread
        self._tilt = 0.0
        self._turnovers = _PRIOR_TURNOVERS
        self._loads = 0
        self._load_mean = 0.0
        self._load_variance = _LEAST_VARIANCE

    def p90_factor(self, requests: int) -> float:
        """What a mean is multiplied with on a server that has so many requests, > 1."""
        spread = self._spread * exp(self._tilt * self._deviation(requests))
        return exp(min(_MOST, max(_LEAST, spread)))

    def note_load(self, requests: int) -> None:
        """Take in that a request was sent to a server with so many."""
        weight = max(_LOAD_MEMORY, 1.0 / (1.0 + self._loads))
        off = log(1.0 + requests) - self._load_mean
        self._load_mean += weight * off
        self._load_variance += weight * (off * off - self._load_variance)
        self._loads += 1

    def learn(self, *, requests: int, off: float, under_way: int) -> None:
        """Take in one outcome.

        Args:
            requests: those on its server when it was forecast.
            off: log(actual / told).
            under_way: requests on all servers.
        """
        turnover = 1.0 / max(_FEWEST_UNDER_WAY, under_way)
        self._turnovers += turnover
        weight = turnover * max(_WEIGHT_OF_TURNOVER, _EARLY_WEIGHT / self._turnovers)
        deviation = self._deviation(requests)
        counted = off * _LATE if off > 0.0 else -off * _EARLY
        seen = _P90_OF_MEAN_DEVIATION * counted * exp(-self._tilt * deviation)
        seen = min(seen, _MOST_AT_ONCE * self._spread)
        spread = self._spread + weight * (seen - self._spread)
        self._spread = spread = min(_MOST, max(_LEAST, spread))
        tilt = self._tilt + _TILT_GROWTH * weight * (seen / spread - 1.0) * deviation
        self._tilt = min(_MOST_TILT, max(-_MOST_TILT, tilt))

    def _deviation(self, requests: int) -> float:
        usual = sqrt(max(_LEAST_VARIANCE, self._load_variance))
        deviation = (log(1.0 + requests) - self._load_mean) / usual
        return min(_FARTHEST, max(-_FARTHEST, deviation))
