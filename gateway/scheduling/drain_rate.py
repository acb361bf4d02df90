"""How fast the queue drains: predicted waits for early refusals, and an honest Retry-After."""

from math import exp
from random import Random
from typing import Final

_MEMORY_S: Final = 10.0
_SHORT_MEMORY_S: Final = 2.0
_SPREAD: Final = 1.3
"""A rate over the short memory is of few events: it may well be so many times as high."""
_SHORTEST_S: Final = 1.0
_LONGEST_S: Final = 60.0
_JITTER: Final = 0.25
_FREE_SHARE: Final = 0.5
"""Of the rate of dispatches, what those who come back will find free after an overload."""
_HOPED_SHARE: Final = 0.03
_PAUSE_S: Final = 2.0
_NEWEST_SHARE: Final = 0.5
_KNOWN_AFTER_S: Final = 1.0
"""Non-Critical requests must have waited this long before their rate says what servers can take."""


class _Rate:
    """Exponentially forgotten rate of events, per second."""

    __slots__ = ("_at", "_memory_s", "_weight")

    def __init__(self, *, memory_s: float = _MEMORY_S) -> None:
        self._memory_s = memory_s
        self._weight = 0.0
        self._at = 0.0

    def count(self, now: float) -> None:
        self._weight = self._weight * exp((self._at - now) / self._memory_s) + 1.0
        self._at = now

    def take_back(self, now: float) -> None:
        left = self._weight * exp((self._at - now) / self._memory_s)
        self._weight = max(0.0, left - 1.0)
        self._at = now

    def at(self, now: float) -> float:
        return self._weight * exp((self._at - now) / self._memory_s) / self._memory_s


class _Overload:
    """How long overloads last: spells of refusals without a pause of two seconds in them."""

    __slots__ = ("_began_at", "_last_at", "_typical_s")

    def __init__(self) -> None:
        self._began_at = self._last_at = float("-inf")
        self._typical_s = 0.0

    def refused(self, *, now: float) -> float:
        """Take in a refusal; return how long the overload will go on.

        As long as the others did; one that lasts longer goes on for as long as it has lasted.
        """
        if now - self._last_at > _PAUSE_S:
            if self._last_at > self._began_at:
                lasted_s = self._last_at - self._began_at
                self._typical_s += _NEWEST_SHARE * (lasted_s - self._typical_s)
            self._began_at = now
        self._last_at = now
        age_s = now - self._began_at
        return self._typical_s - age_s if age_s < self._typical_s else age_s


class DrainRate:
    """Rates of dispatches, of all requests and of Non-Critical ones, and who was sent away."""

    def __init__(self, *, rng: Random) -> None:
        """Start with nothing seen. `rng` spreads the returns of refused clients."""
        self._rng = rng
        self._all = _Rate()
        self._non_critical = _Rate()
        self._non_critical_of_late = _Rate(memory_s=_SHORT_MEMORY_S)
        self._overload = _Overload()
        self._sent_away = 0.0
        self._sent_away_at = 0.0
        self._scarce_since = self._scarce_at = float("-inf")

    def dispatched(self, *, critical: bool, now: float) -> None:
        """Take in one dispatch."""
        self._all.count(now)
        if not critical:
            self._non_critical.count(now)
            self._non_critical_of_late.count(now)

    def preempted(self, *, now: float) -> None:
        """A Non-Critical request was given up again: its dispatch served nobody."""
        self._all.take_back(now)
        self._non_critical.take_back(now)
        self._non_critical_of_late.take_back(now)

    def non_critical_wait_s(self, *, critical: int, non_critical: int, now: float) -> float:
        """How long a Non-Critical arrival that found no server open would wait behind so many.

        Critical ones leave at the rate of all dispatches, Non-Critical ones at their own and a
        little more, so that some wait for what Critical ones leave unexpectedly. Their own rate
        rises slowly and falls fast: when an overload has begun, what they had before it is no
        longer there to wait for. 0 where nothing is known: within the first second in which such
        requests wait, since until then their rate told what came and not what could be served,
        or with hardly any dispatches.
        """
        if not non_critical and now - self._scarce_at > _PAUSE_S:
            self._scarce_since = now
        self._scarce_at = now
        every = self._all.at(now)
        if now - self._scarce_since < _KNOWN_AFTER_S or every * _MEMORY_S < 1.0:
            return 0.0
        own = min(self._non_critical.at(now), _SPREAD * self._non_critical_of_late.at(now))
        own += _HOPED_SHARE * every
        return critical / every + (non_critical + 1) / own

    def retry_after_s(self, *, waiting: int, now: float) -> float:
        """When a refused client should come back: 1 to 60 s, jittered.

        It comes when the overload is over, as far as can be told, after those that wait and those
        that were sent away before it. They are counted as a backlog that drains at the part of
        the rate of dispatches that is hoped to be free for it.
        """
        overload_s = self._overload.refused(now=now)
        rate = _FREE_SHARE * self._all.at(now)
        left = self._sent_away - rate * (now - self._sent_away_at)
        self._sent_away = max(0.0, left) + 1.0
        self._sent_away_at = now
        if rate <= 0.0:
            return _LONGEST_S if waiting else _SHORTEST_S
        wait_s = overload_s + (waiting + self._sent_away) / rate
        return min(_LONGEST_S, max(_SHORTEST_S, wait_s * (1.0 + _JITTER * self._rng.random())))
