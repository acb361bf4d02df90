"""How wide the p90 of what is told of TPOT has to be, by the load of the server.

Adaptive conformal inference (Gibbs and Candes, 2021) with a linear condition (Gibbs, Cherian and
Candes, 2023): the logarithm of the spread is `a + b*z`, z the logarithm of the requests there
against their mean, in standard deviations. Each outcome moves both so that nine of ten are within
the p90, at low load as at high. All servers of a pool share them: one has too few outcomes for it.
"""

from math import exp, log, sqrt

_COVERED = 0.9
_FIRST_GROWTH = 0.3
_GROWTH_SLOWING_SAMPLES = 10.0
_LAST_GROWTH = 0.03
_TILT_GROWTH = 0.02
_UNDER_WAY = 270.0
"""While more requests are under way, each outcome moves less: all of those were told a p90 that the
latest outcomes had no part in, and what all of them ask for at once would be too much."""
_LEAST, _MOST = log(0.01), log(1.5)
_MOST_TILT = 1.5
_FARTHEST = 2.5
_LOAD_MEMORY = 0.005
_LEAST_VARIANCE = 0.0025


class ToldSpread:
    """The logarithm of p90 over mean of what is told, learned from whether the p90 held."""

    __slots__ = ("_level", "_load_mean", "_load_variance", "_loads", "_samples", "_tilt")

    def __init__(self, spread: float) -> None:
        """Start from `spread`, > 0, at every load."""
        self._level = log(spread)
        self._tilt = 0.0
        self._samples = 0
        self._loads = 0
        self._load_mean = 0.0
        self._load_variance = _LEAST_VARIANCE

    def p90_factor(self, requests: int) -> float:
        """What a mean is multiplied with on a server that has so many requests, > 1."""
        level = self._level + self._tilt * self._deviation(requests)
        return exp(exp(min(_MOST, max(_LEAST, level))))

    def note_load(self, requests: int) -> None:
        """Take in that a request was sent to a server with so many."""
        weight = max(_LOAD_MEMORY, 1.0 / (1.0 + self._loads))
        off = log(1.0 + requests) - self._load_mean
        self._load_mean += weight * off
        self._load_variance += weight * (off * off - self._load_variance)
        self._loads += 1

    def learn(self, *, requests: int, held: bool, under_way: int) -> None:
        """Take in one outcome.

        Args:
            requests: those on its server when it was forecast.
            held: whether the time was within its p90.
            under_way: requests on all servers, >= 1.
        """
        share = min(1.0, _UNDER_WAY / under_way)
        first = _FIRST_GROWTH / (1.0 + self._samples / _GROWTH_SLOWING_SAMPLES)
        change = _COVERED - 1.0 if held else _COVERED
        level = self._level + max(share * _LAST_GROWTH, first) * change
        self._level = min(_MOST, max(_LEAST, level))
        tilt = self._tilt + share * _TILT_GROWTH * change * self._deviation(requests)
        self._tilt = min(_MOST_TILT, max(-_MOST_TILT, tilt))
        self._samples += 1

    def _deviation(self, requests: int) -> float:
        usual = sqrt(max(_LEAST_VARIANCE, self._load_variance))
        deviation = (log(1.0 + requests) - self._load_mean) / usual
        return min(_FARTHEST, max(-_FARTHEST, deviation))
