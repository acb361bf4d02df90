"""The circuit breaker of one server: closed, open for a while, then half open for one probe.

Trips on failures in a row, on a share of failures, or when told to. The terms are Nygard's
("Release It!", chapter Circuit Breaker); the back-off doubles, as Envoy's outlier detection grows.
"""

from enum import StrEnum
from math import exp
from typing import Final

from gateway.scheduling.model import RequestId
from gateway.scheduling.policy import BreakerPolicy

_MEMORY_S: Final = 30.0
"""Time constant with which outcomes are forgotten."""
_BENEFIT_OF_DOUBT: Final = 5.0
"""Successes that are taken for granted when a server's chance of failure is estimated."""
_NEGLIGIBLE: Final = 0.005


class Circuit(StrEnum):
    """Whether a server gets requests: all, none for now, or one to see how it fares."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """State machine of one server, fed with what became of its requests.

    Attributes:
        circuit: the state; `open_until` is when an open one becomes half open.
        probe: the request that is to show whether the server has recovered, while half open.
        ejections: times it opened after having been closed.
        reason: why it opened last.
    """

    __slots__ = (
        "_closed_at",
        "_failures",
        "_in_a_row",
        "_level",
        "_opened_at",
        "_outcomes",
        "_seen_at",
        "circuit",
        "ejections",
        "open_until",
        "probe",
        "reason",
    )

    def __init__(self) -> None:
        """Start closed, with nothing held against the server."""
        self.circuit = Circuit.CLOSED
        self.open_until = float("inf")
        self.probe: RequestId | None = None
        self.ejections = 0
        self.reason = ""
        self._level = 0
        self._opened_at = float("-inf")
        self._closed_at = float("-inf")
        self._in_a_row = 0
        self._outcomes = 0.0
        self._failures = 0.0
        self._seen_at = 0.0

    @property
    def shut(self) -> bool:
        """Whether the server gets nothing new now."""
        return self.circuit is Circuit.OPEN or self.probe is not None

    @property
    def awaits_probe(self) -> bool:
        """Whether the next request that fits should go there."""
        return self.circuit is Circuit.HALF_OPEN and self.probe is None

    def failure_rate(self, now: float) -> float:
        """Chance that a request fails there, 0..1; 0.0 once failures are long past."""
        self._forget(now)
        rate = self._failures / (self._outcomes + _BENEFIT_OF_DOUBT)
        return rate if rate >= _NEGLIGIBLE else 0.0

    def answered(self, *, dispatched_at: float, now: float) -> None:
        """An answer began: it works. One asked for before it opened says nothing."""
        if self.circuit is Circuit.CLOSED:
            self._in_a_row = 0
        elif dispatched_at >= self._opened_at:
            self._close(now)

    def completed(self, *, dispatched_at: float, now: float) -> None:
        """An answer is complete."""
        self.answered(dispatched_at=dispatched_at, now=now)
        self._forget(now)
        self._outcomes += 1.0

    def failed(self, policy: BreakerPolicy, *, dispatched_at: float, now: float) -> None:
        """A request failed there. Those from before it opened add nothing to the back-off."""
        self._forget(now)
        self._outcomes += 1.0
        self._failures += 1.0
        self._in_a_row += 1
        if self.circuit is not Circuit.CLOSED:
            if dispatched_at >= self._opened_at:
                self.trip(policy, self.reason, now=now)
        elif self._in_a_row >= policy.consecutive_failures:
            self.trip(policy, f"{self._in_a_row} failures in a row", now=now)
        elif (
            self._outcomes >= policy.min_requests
            and self._failures >= policy.failure_share * self._outcomes
        ):
            share = self._failures / self._outcomes
            self.trip(policy, f"{share:.0%} of requests fail", now=now)

    def trip(self, policy: BreakerPolicy, reason: str, *, now: float) -> None:
        """Open, each time for twice as long as the last until it has been well for some time."""
        if self.circuit is Circuit.CLOSED:
            self.ejections += 1
            if now - self._closed_at > policy.longest_ejection_s:
                self._level = 0
        self.circuit = Circuit.OPEN
        self.reason = reason
        self.probe = None
        self._opened_at = now
        back_off_s = policy.first_ejection_s * 2.0**self._level
        self.open_until = now + min(back_off_s, policy.longest_ejection_s)
        if back_off_s < policy.longest_ejection_s:
            self._level += 1

    def half_open(self) -> None:
        """Let one request show how the server fares."""
        self.circuit = Circuit.HALF_OPEN
        self.open_until = float("inf")

    def _close(self, now: float) -> None:
        self.circuit = Circuit.CLOSED
        self.open_until = float("inf")
        self.probe = None
        self._closed_at = now
        self._in_a_row = 0
        self._outcomes = self._failures = 0.0

    def _forget(self, now: float) -> None:
        if self._outcomes:
            kept = exp((self._seen_at - now) / _MEMORY_S)
            self._outcomes *= kept
            self._failures *= kept
        self._seen_at = now
