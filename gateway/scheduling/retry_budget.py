"""How many failed attempts may be tried again, over all traffic.

A token bucket as in Finagle's RetryBudget: each first dispatch earns a fraction of a retry, so
that retries stay a bounded share of traffic when a whole pool fails.
"""

from gateway.scheduling.events import LOST, FailureKind
from gateway.scheduling.policy import RetryPolicy


class RetryBudget:
    """Token bucket of retries.

    Only failures answered by a live server draw on it: those of a server that is gone hit each
    request once per dead server, are ended by taking it out, and must not be lost to a budget.
    """

    def __init__(self, *, policy: RetryPolicy) -> None:
        """Start full."""
        self._policy = policy
        self._saved = policy.budget_burst

    def earn(self) -> None:
        """Count a request's first dispatch."""
        self._saved = min(self._policy.budget_burst, self._saved + self._policy.budget_ratio)

    def spend(self, kind: FailureKind) -> bool:
        """Take one retry for a failure of this kind; False when the budget is used up."""
        if kind in LOST:
            return True
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
