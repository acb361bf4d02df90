"""How many requests a second keep a share of the servers' places in use: Little's law, followed."""

from math import exp

_MEMORY_S = 120.0
"""Time constant: chance averages out over it, and a machine is busy for longer."""
_FIRST_GUESS_S = 10.0
"""What the first guess weighs, as if it had been seen for so long."""


class ArrivalPace:
    """Arrivals a second for so many places in use: places / mean time in a place (L = lambda W).

    The mean time is that of the last minutes: place-seconds by requests that ended. It holds where
    servers slow down, where requests wait, and where clients leave.

    Attributes:
        rate: arrivals a second.
    """

    def __init__(self, *, wanted: float, time_in_place_s: float) -> None:
        """Begin with a guess of the mean time a request takes a place for."""
        self._wanted = wanted
        self.rate = wanted / time_in_place_s
        self._place_seconds = wanted * _FIRST_GUESS_S
        self._ended = self.rate * _FIRST_GUESS_S

    def observe(self, *, in_use: float, ended: int, seconds: float) -> None:
        """So many places were in use for these seconds, and so many requests ended."""
        kept = exp(-seconds / _MEMORY_S)
        self._place_seconds = kept * self._place_seconds + in_use * seconds
        self._ended = kept * self._ended + ended
        self.rate = self._wanted * self._ended / self._place_seconds
