"""How fast the queue drains, for an honest Retry-After."""

from math import exp

_MEMORY_S = 10.0
_SHORTEST_S = 1.0
_LONGEST_S = 60.0


class DrainRate:
    """Exponentially forgotten rate of dispatches."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._weight = 0.0
        self._at = 0.0

    def count(self, *, now: float) -> None:
        """Take in one dispatch."""
        self._weight = self._decayed(now) + 1.0
        self._at = now

    def retry_after_s(self, *, waiting: int, now: float) -> float:
        """Time until `waiting` requests and one more are dispatched, within 1 to 60 s."""
        rate = self._decayed(now) / _MEMORY_S
        if rate <= 0.0:
            return _LONGEST_S if waiting else _SHORTEST_S
        return min(_LONGEST_S, max(_SHORTEST_S, (waiting + 1) / rate))

    def _decayed(self, now: float) -> float:
        return self._weight * exp((self._at - now) / _MEMORY_S)
