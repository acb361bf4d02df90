"""How well each service has met its objective over the rolling window, and what that is worth.

`burn = weight * (missed + sum of p_miss in flight + n0*(1-target)) / ((ended + in flight + n0) *
(1-target))`: the share of its error budget that a service uses up. `n0` neutral requests are the
start of a new service. A request counts as missed at the moment when that is certain, also while
it still waits: counted at its end, the queue would hide the misses and the worst-off service
would be served last.
"""

from collections import deque
from typing import Final

from gateway.scheduling.model import LLMService, ServiceName
from gateway.scheduling.policy import FairnessPolicy
from gateway.scheduling.tracked_request import TrackedRequest

_BUCKETS: Final = 60
_DEFAULT_TARGET: Final = 0.95
_SMALLEST_BUDGET: Final = 0.001


class Adherence:
    """One service's outcomes in the window.

    Attributes:
        ended, missed: requests that count for fairness.
        all_ended, all_missed: every request, as reported.
        judged_total, missed_total: likewise, ever since the start.
        in_flight, expected_misses: dispatched requests without an outcome, and the sum of their
            probabilities to miss.
    """

    __slots__ = (
        "_bucket_s",
        "_buckets",
        "all_ended",
        "all_missed",
        "ended",
        "expected_misses",
        "in_flight",
        "judged_total",
        "missed",
        "missed_total",
    )

    def __init__(self, *, window_s: float) -> None:
        """Start without outcomes."""
        self._bucket_s = window_s / _BUCKETS
        self._buckets: deque[list[int]] = deque()
        self.ended = self.missed = self.all_ended = self.all_missed = 0
        self.judged_total = self.missed_total = 0
        self.in_flight = 0
        self.expected_misses = 0.0

    def count(self, *, missed: bool, burns: bool, now: float) -> None:
        """Take in one outcome."""
        self.forget_old(now)
        number = int(now / self._bucket_s)
        if not self._buckets or self._buckets[-1][0] != number:
            self._buckets.append([number, 0, 0, 0, 0])
        bucket = self._buckets[-1]
        bucket[3] += 1
        self.all_ended += 1
        self.judged_total += 1
        if missed:
            bucket[4] += 1
            self.all_missed += 1
            self.missed_total += 1
        if burns:
            bucket[1] += 1
            self.ended += 1
            if missed:
                bucket[2] += 1
                self.missed += 1

    def change_window(self, window_s: float, *, now: float) -> None:
        """Hold to a window of another length from now on; outcomes keep their times."""
        buckets, self._buckets = self._buckets, deque()
        old_s, self._bucket_s = self._bucket_s, window_s / _BUCKETS
        for bucket in buckets:
            number = int(bucket[0] * old_s / self._bucket_s)
            if self._buckets and self._buckets[-1][0] == number:
                merged = self._buckets[-1]
                merged[1:] = [a + b for a, b in zip(merged[1:], bucket[1:], strict=True)]
            else:
                self._buckets.append([number, *bucket[1:]])
        self.forget_old(now)

    def forget_old(self, now: float) -> None:
        """Drop what is older than the window."""
        oldest = int(now / self._bucket_s) - _BUCKETS
        while self._buckets and self._buckets[0][0] <= oldest:
            _, ended, missed, all_ended, all_missed = self._buckets.popleft()
            self.ended -= ended
            self.missed -= missed
            self.all_ended -= all_ended
            self.all_missed -= all_missed


class SloAdherence:
    """All services of a pool."""

    def __init__(self, *, policy: FairnessPolicy) -> None:
        """Take window and neutral start from `policy`."""
        self._policy = policy
        self._services: dict[ServiceName, Adherence] = {}

    def reconfigure(self, policy: FairnessPolicy, *, now: float) -> None:
        """Use another window and neutral start from now on; what was counted stays counted."""
        changes = policy.window_s != self._policy.window_s
        self._policy = policy
        if changes:
            for adherence in self._services.values():
                adherence.change_window(policy.window_s, now=now)

    def of(self, service: ServiceName) -> Adherence:
        """The service's outcomes; empty for one that was never seen."""
        found = self._services.get(service)
        if found is None:
            found = self._services[service] = Adherence(window_s=self._policy.window_s)
        return found

    def services(self) -> tuple[ServiceName, ...]:
        """Those that were ever seen."""
        return tuple(self._services)

    def dispatched(self, tracked: TrackedRequest, miss_probability: float) -> None:
        """Charge a request with its forecast, unless it is counted as missed already."""
        if tracked.counted:
            return
        adherence = self.of(tracked.service.name)
        adherence.in_flight += 1
        adherence.expected_misses += miss_probability
        tracked.miss_probability = miss_probability

    def withdrawn(self, tracked: TrackedRequest) -> None:
        """Take the charge back: the request has an outcome, or returns to the queue."""
        if tracked.miss_probability is not None:
            adherence = self.of(tracked.service.name)
            adherence.in_flight -= 1
            adherence.expected_misses -= tracked.miss_probability
            tracked.miss_probability = None

    def settle(
        self, tracked: TrackedRequest, *, missed: bool, burns: bool = True, now: float
    ) -> None:
        """Count the request's outcome, once; later calls change nothing."""
        self.withdrawn(tracked)
        if not tracked.counted:
            tracked.counted = True
            self.of(tracked.service.name).count(
                missed=missed, burns=burns and not tracked.impossible, now=now
            )

    def burn(self, service: LLMService, *, now: float) -> float:
        """Use of the service's error budget; 1.0 is exactly at its target."""
        adherence = self.of(service.name)
        adherence.forget_old(now)
        neutral = self._policy.neutral_requests
        budget = error_budget(service)
        misses = adherence.missed + adherence.expected_misses + neutral * budget
        requests = adherence.ended + adherence.in_flight + neutral
        return service.fairness_weight * misses / (requests * budget)


def error_budget(service: LLMService) -> float:
    """Share of a service's requests that may miss, above 0."""
    target = _DEFAULT_TARGET if service.objective is None else service.objective.percentile
    return max(_SMALLEST_BUDGET, 1.0 - target)
