"""Who may wait, for how long, and from when on waiting is in vain."""

from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.events import LOST, FailureKind
from gateway.scheduling.model import is_critical
from gateway.scheduling.prefix_home import home_of
from gateway.scheduling.scheduler_parts import Knowledge, Rules
from gateway.scheduling.tracked_request import TrackedRequest


class Admission:
    """The way into the queue, and out of it unserved. The scheduler sets phases and tells."""

    def __init__(self, *, knowledge: Knowledge, rules: Rules) -> None:
        """Guard the queue by `rules`."""
        self._queue = knowledge.queue
        self._ledger = knowledge.ledger
        self._drain_rate = knowledge.drain_rate
        self._adherence = knowledge.adherence
        self._rules = rules

    def reconfigure(self, rules: Rules) -> None:
        """Judge by other rules from now on; the limits of the queue among them."""
        self._rules = rules
        self._queue.reconfigure(rules.policy.queue)

    def refusal_of(self, tracked: TrackedRequest, *, now: float) -> RefusalReason | None:
        """Why an arrival that no server is open for had better not wait, or None.

        That the queue is full shows only when room is made; see `displaced_by`.
        """
        if tracked.expires_at <= now:
            self._adherence.settle(tracked, missed=True, now=now)
            if self._ledger.is_empty:
                return RefusalReason.NO_BACKEND
            return RefusalReason.NO_CAPACITY
        if self._would_wait_too_long(tracked, now):
            self._adherence.settle(tracked, missed=True, now=now)
            return RefusalReason.NO_CAPACITY
        return None

    def wait(self, tracked: TrackedRequest, *, room_comes: bool = False, now: float) -> None:
        """Put a request into the queue; what is late already goes to its late lane.

        Where `room_comes`, a server is about to be open to it: what is late is not known by the
        servers as they are.
        """
        self._rules.order.waits(tracked, self._queue.waiting_services())
        if room_comes:
            spare = 1.0 - self._rules.capacity.margin_of(tracked)
            tracked.late_at = now + spare * (tracked.arrived_at + tracked.ttft_bound_s - now)
        else:
            self._set_late_at(tracked, now)
        tracked.home = home_of(tracked, self._ledger.serving(tracked.target))
        if tracked.late_at <= now:
            tracked.late = True
            self._adherence.settle(tracked, missed=True, now=now)
        self._queue.push(tracked)

    def may_return(self, tracked: TrackedRequest, kind: FailureKind) -> bool:
        """Whether a request whose server failed may wait for another one.

        Never for one that was tried, and within the attempts and the budget of all traffic. Where
        the connection was lost, the server will soon be known to be out, and may come back as
        another one; where all servers answered with errors, waiting would only delay the bad news.
        """
        if tracked.attempts >= self._rules.policy.retry.max_attempts:
            return False
        serving = self._ledger.serving(tracked.target)
        if serving and kind not in LOST and all(backend.failed(tracked) for backend in serving):
            return False
        return self._rules.retries.spend(kind)

    def next_deadline(self) -> float | None:
        """When the next waiting request becomes late or gives up, or None while nothing waits."""
        expiry_at = self._queue.next_expiry_at()
        late_at = self._queue.next_late_at()
        if expiry_at is None or late_at is None:
            return expiry_at
        return min(expiry_at, late_at)

    def expiry_reason(self, tracked: TrackedRequest) -> RefusalReason:
        """What to tell a request whose wait is over."""
        if self._ledger.is_empty:
            return RefusalReason.NO_BACKEND
        own_s = tracked.service.max_queue_wait_s
        if own_s is None or is_critical(tracked.service.priority):
            return RefusalReason.QUEUE_TIMEOUT
        if own_s < self._rules.policy.queue.timeout_s:
            return RefusalReason.NO_CAPACITY
        return RefusalReason.QUEUE_TIMEOUT

    def retry_after_s(self, *, now: float) -> float:
        """When a refused client should come back."""
        return self._drain_rate.retry_after_s(waiting=self._queue.requests, now=now)

    def _set_late_at(self, tracked: TrackedRequest, now: float) -> None:
        """The instant from which, as things stand, its first token would come too late."""
        tracked.late_at = float("inf")
        serving = self._ledger.serving(tracked.target)
        if tracked.service.objective is not None and serving:
            if self._rules.shortlist is not None:
                serving = (self._rules.shortlist.soonest(tracked, serving, now=now),)
            ttft_s = self._rules.capacity.soonest_ttft_s(tracked, serving, now=now)
            tracked.late_at = tracked.arrived_at + max(0.0, tracked.ttft_bound_s - ttft_s)

    def _would_wait_too_long(self, tracked: TrackedRequest, now: float) -> bool:
        """Whether a Non-Critical request had better be refused than be kept waiting in vain."""
        if is_critical(tracked.service.priority) or self._ledger.is_empty:
            return False
        budget_s = tracked.expires_at - now
        if tracked.service.objective is not None:
            budget_s = min(budget_s, tracked.ttft_bound_s)
        waiting = self._queue.critical_requests
        wait_s = self._drain_rate.non_critical_wait_s(
            critical=waiting, non_critical=self._queue.requests - waiting, now=now
        )
        return wait_s > budget_s
