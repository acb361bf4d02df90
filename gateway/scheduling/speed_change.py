"""Notices that a server has changed its speed, within seconds.

A fit over exponentially forgotten samples follows a change only as it forgets: half a minute and
more, in which every forecast is wrong. A stall, a burst of prompts or noise are over in one or two
samples; when the median of two seconds is far off, the engine itself has changed.
"""

from collections import deque
from math import exp, log
from typing import Final

_WINDOW: Final = 8
_NEWEST: Final = 4
_LEAST_CHANGE: Final = log(1.3)


class SpeedChange:
    """Watches the logarithm of measured over expected step time, of four samples a second."""

    __slots__ = ("_residuals",)

    def __init__(self) -> None:
        """Start without samples."""
        self._residuals: deque[float] = deque(maxlen=_WINDOW)

    def factor(self, residual: float) -> float | None:
        """Take in a sample; how much slower the server has become (below 1: faster), or None.

        What led to an answer is forgotten with it.
        """
        residuals = self._residuals
        residuals.append(residual)
        if len(residuals) < _WINDOW or abs(residual) < _LEAST_CHANGE:
            return None
        if abs(_median(list(residuals))) < _LEAST_CHANGE:
            return None
        newest = _median(list(residuals)[-_NEWEST:])
        residuals.clear()
        return exp(newest)


def _median(values: list[float]) -> float:
    values.sort()
    middle = len(values) // 2
    return (values[middle - 1] + values[middle]) / 2.0
