"""Ends the stay of requests that are not served: rejected, evicted from the queue, or given up."""

from collections.abc import Sequence

from gateway.scheduling.decisions import Decision, Evict, RefusalReason, Reject
from gateway.scheduling.model import RequestId, RequestPhase
from gateway.scheduling.scheduler_parts import Knowledge, Rules
from gateway.scheduling.stages import Stages
from gateway.scheduling.tracked_request import TrackedRequest


class Refusals:
    """Tells of refusals, and keeps queue, adherence and order in step with them."""

    def __init__(
        self,
        *,
        knowledge: Knowledge,
        stages: Stages,
        rules: Rules,
        tracked: dict[RequestId, TrackedRequest],
        decisions: list[Decision],
    ) -> None:
        """Take requests that have ended out of `tracked`; add to `decisions`."""
        self._queue = knowledge.queue
        self._adherence = knowledge.adherence
        self._drain_rate = knowledge.drain_rate
        self._admission = stages.admission
        self._turns = stages.turns
        self._rules = rules
        self._tracked = tracked
        self._decisions = decisions

    def reconfigure(self, rules: Rules) -> None:
        """Charge by other rules from now on."""
        self._rules = rules

    def reject(
        self, request_id: RequestId, reason: RefusalReason, *, retry_after_s: float | None = None
    ) -> None:
        """Refuse an arrival."""
        self._decisions.append(Reject(request_id, reason, retry_after_s))

    def evict(self, tracked: TrackedRequest, reason: RefusalReason, *, now: float) -> None:
        """Refuse a request that waits."""
        self._adherence.settle(tracked, missed=True, now=now)
        self._turns.end_hold(tracked)
        self._queue.forget(tracked)
        self.give_up(tracked, reason, now=now)

    def give_up(self, tracked: TrackedRequest, reason: RefusalReason, *, now: float) -> None:
        """Refuse a request that is neither in the queue nor on a server."""
        tracked.enter(RequestPhase.EVICTED)
        del self._tracked[tracked.request.id]
        self._tell_evicted(tracked, reason, now)

    def preempt(self, given_up: Sequence[TrackedRequest], *, now: float) -> None:
        """Give up Non-Critical requests without a token; they hold their servers until closed."""
        for tracked in given_up:
            self._adherence.settle(tracked, missed=True, now=now)
            self._rules.order.refunded(tracked)
            tracked.enter(RequestPhase.EVICTED)
            self._tell_evicted(tracked, RefusalReason.PREEMPTED, now)
            self._drain_rate.preempted(now=now)

    def _tell_evicted(self, tracked: TrackedRequest, reason: RefusalReason, now: float) -> None:
        retry_after_s = self._admission.retry_after_s(now=now)
        self._decisions.append(Evict(tracked.request.id, reason, retry_after_s))
