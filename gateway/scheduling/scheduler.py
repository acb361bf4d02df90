"""The scheduler: facts in, orders out; one object per pool, live and simulated alike.

Contract
1. `handle(event, now=...)` is the only mutator. It never blocks, awaits, logs, reads a clock, or
   raises for something a peer did. Unknown or late ids are ignored and counted.
2. `now` never decreases; equal is allowed. A late or repeated DeadlinePassed is harmless.
3. Deciding reserves: the ledger and the request's phase change in the same call that returns the
   decision. Every stay in QUEUED ends in exactly one of Dispatch, Reject or Evict, unless a
   RequestCancelled came first. A request stays there once, and once more after each retryable
   DispatchFailed. Where that is wanted, a Non-Critical request without a token may get an Evict
   after its Dispatch: its stream is to be closed.
4. Every Dispatch is matched by exactly one of ResponseFinished, DispatchFailed, RequestCancelled,
   which releases it, also after an Evict. In-flight counters cannot leak or go below zero, also
   when a server leaves and comes back.
5. Work-conserving: after `handle` returns, no head of a flow waits while a server is open for it
   because of the event (what is left to others, see prefix_home.py, is not). What opens without an
   event, as forecasts change with time, with chunks of streams and with the demand of Critical
   services, is seen at the next event of the server, or when an arrival would take it.
6. Deterministic: dicts and lists only, ties by sequence number, random draws from the injected
   source, which depend only on the history of events.
7. Amortised O(log n) per event in queue length, O(servers) per dispatch. Chunks of responses never
   enter: the driver reports progress per server, at most 4 times a second.
"""

from collections.abc import Iterable, Sequence
from typing import assert_never

from gateway.scheduling import events as ev
from gateway.scheduling.arrivals import Arrivals
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.breakers import HealthChange
from gateway.scheduling.decisions import Decision, RefusalReason
from gateway.scheduling.model import BackendId, RequestId, RequestPhase, ServiceName, is_critical
from gateway.scheduling.policy import SchedulingPolicy
from gateway.scheduling.refusals import Refusals
from gateway.scheduling.scheduler_parts import Knowledge, MakeRules, Rules
from gateway.scheduling.snapshot import Explanation, SchedulerSnapshot
from gateway.scheduling.snapshot_builder import take_snapshot
from gateway.scheduling.stages import Stages
from gateway.scheduling.tracked_request import TrackedRequest


class Scheduler:
    """Decides for one pool; see the contract above."""

    def __init__(self, *, knowledge: Knowledge, rules: Rules, make_rules: MakeRules) -> None:
        """Use build.build_scheduler. `make_rules` serves PoliciesChanged."""
        self._knowledge = knowledge
        self._ledger = knowledge.ledger
        self._queue = knowledge.queue
        self._adherence = knowledge.adherence
        self._breakers = knowledge.breakers
        self._breakers.reconfigure(rules.policy.breaker)
        self._rules = rules
        self._make_rules = make_rules
        self._stages = stages = Stages(knowledge=knowledge, rules=rules)
        self._intake = stages.intake
        self._admission = stages.admission
        self._turns = stages.turns
        self._preemption = stages.preemption
        self._dispatcher = stages.dispatcher
        self._flights = stages.flights
        self._tracked: dict[RequestId, TrackedRequest] = {}
        self._decisions: list[Decision] = []
        self._refusals = Refusals(
            knowledge=knowledge,
            stages=stages,
            rules=rules,
            tracked=self._tracked,
            decisions=self._decisions,
        )
        self._arrivals = Arrivals(
            knowledge=knowledge,
            stages=stages,
            rules=rules,
            refusals=self._refusals,
            tracked=self._tracked,
            decisions=self._decisions,
        )
        self._draining = False
        self._ignored_events = 0

    def handle(self, event: ev.SchedulerEvent, *, now: float) -> list[Decision]:  # noqa: C901, PLR0912 - an arm per event
        """Take in one fact; return the orders that follow from it, in order."""
        if now >= self._breakers.next_at:
            self._breakers.advance(now)
            self._fill_reopened(now)
        match event:
            case ev.RequestArrived():
                self._on_arrived(event, now)
            case ev.FirstTokenReceived():
                self._on_first_token(event.request_id, now)
            case ev.ResponseProgressed():
                self._on_progressed(event, now)
            case ev.ResponseFinished():
                self._on_finished(event, now)
            case ev.BackendLoadReported():
                self._on_load_reported(event, now)
            case ev.RequestCancelled():
                self._on_cancelled(event.request_id, now)
            case ev.DispatchFailed():
                self._on_failed(event, now)
            case ev.DeadlinePassed():
                self._on_deadline(now)
            case ev.BackendJoined():
                self._on_joined(event, now)
            case ev.BackendDraining():
                if self._known(event.backend_id) is not None:
                    self._ledger.drain(event.backend_id)
                    self._breakers.closed()
                    self._fill(self._ledger.backends, now)
            case ev.BackendLeft():
                self._on_left(event, now)
            case ev.PoliciesChanged():
                self._on_policies_changed(event.policy, now)
            case ev.DrainStarted():
                self._draining = True
            case _:
                assert_never(event)
        self._fill_reopened(now)
        decisions = self._decisions.copy()
        self._decisions.clear()
        return decisions

    def next_deadline(self) -> float | None:
        """When DeadlinePassed is due, or None while nothing waits."""
        due_at = self._admission.next_deadline()
        return None if due_at is None else min(due_at, self._breakers.opens_at)

    def take_health_changes(self) -> Sequence[HealthChange]:
        """Servers that were ejected or taken back since the last call, for the log."""
        return self._breakers.take_changes()

    def snapshot(self, *, now: float) -> SchedulerSnapshot:
        """The state at this instant, as plain data."""
        return take_snapshot(
            knowledge=self._knowledge,
            rules=self._rules,
            draining=self._draining,
            tracked_requests=len(self._tracked),
            ignored_events=self._ignored_events,
            now=now,
        )

    def tokens_of_events(self, service: ServiceName, events: int) -> int:
        """Output tokens of a stream without usage, by the ratio learned for its service."""
        return self._flights.tokens_of_events(service, events)

    def explain(self, request_id: RequestId) -> Explanation | None:
        """Why a recent request was sent where it was, or None if unknown or never dispatched."""
        return self._dispatcher.explain(request_id)

    def _on_arrived(self, event: ev.RequestArrived, now: float) -> None:
        self._flights.chunks_seen(event.last_chunks)
        if event.request.id in self._tracked:
            self._ignored_events += 1
        else:
            self._arrivals.arrived(event.request, now=now)

    def _on_first_token(self, request_id: RequestId, now: float) -> None:
        tracked = self._tracked.get(request_id)
        if tracked is None or tracked.phase is not RequestPhase.DISPATCHED:
            self._ignored_events += 1
            return
        tracked.enter(RequestPhase.STREAMING)
        self._fill([self._flights.first_token(tracked, now=now)], now)

    def _on_progressed(self, event: ev.ResponseProgressed, now: float) -> None:
        backend = self._known(event.backend_id)
        if backend is not None:
            self._ignored_events += self._flights.progressed(backend, event)
            self._fill([backend], now)

    def _on_finished(self, event: ev.ResponseFinished, now: float) -> None:
        tracked = self._ending(event.request_id, now)
        if tracked is None:
            return
        tokens = self._flights.completed(tracked, event.usage, now=now) if event.ok else 0
        tracked.enter(RequestPhase.COMPLETED if event.ok else RequestPhase.FAILED)
        self._rules.order.served(tracked, output_tokens=tokens - tracked.expected_output_tokens)
        self._release(tracked, now)

    def _on_failed(self, event: ev.DispatchFailed, now: float) -> None:
        tracked = self._ending(event.request_id, now)
        if tracked is None:
            return
        backend = self._flights.failed(tracked, event.kind, now=now)
        self._rules.order.refunded(tracked)
        if tracked.request.broke_at:
            self._intake.leave_out_broken(tracked)
        if not event.retryable or tracked.phase is not RequestPhase.DISPATCHED:
            tracked.enter(RequestPhase.FAILED)
            del self._tracked[event.request_id]
        elif self._admission.may_return(tracked, event.kind):
            tracked.enter(RequestPhase.QUEUED)
            self._arrivals.wait(tracked, now=now)
            self._fill(self._ledger.backends, now)
            return
        else:
            self._refusals.give_up(tracked, RefusalReason.ATTEMPTS_EXHAUSTED, now=now)
        self._fill([backend], now)

    def _on_cancelled(self, request_id: RequestId, now: float) -> None:
        tracked = self._tracked.get(request_id)
        if tracked is not None and tracked.phase is RequestPhase.QUEUED:
            tracked.enter(RequestPhase.CANCELLED)
            del self._tracked[request_id]
            self._turns.end_hold(tracked)
            self._queue.forget(tracked)
            self._fill(self._ledger.backends, now)
            return
        tracked = self._ending(request_id, now)
        if tracked is not None:
            tracked.enter(RequestPhase.CANCELLED)
            unused_tokens = tracked.expected_output_tokens - tracked.output_tokens
            self._rules.order.served(tracked, output_tokens=-unused_tokens)
            self._release(tracked, now)

    def _on_deadline(self, now: float) -> None:
        expired = self._notice_late(now)
        while (tracked := self._queue.first_expired(now=now)) is not None:
            expired = True
            self._refusals.evict(tracked, self._admission.expiry_reason(tracked), now=now)
        if expired:
            self._fill(self._ledger.backends, now)

    def _notice_late(self, now: float) -> bool:
        """Move Critical requests that became late behind the others, refuse Non-Critical ones."""
        noticed = False
        while (tracked := self._queue.first_late(now=now)) is not None:
            noticed = True
            self._adherence.settle(tracked, missed=True, now=now)
            if is_critical(tracked.service.priority):
                self._turns.end_hold(tracked)
                self._queue.make_late(tracked)
            else:
                self._refusals.evict(tracked, RefusalReason.NO_CAPACITY, now=now)
        return noticed

    def _on_load_reported(self, event: ev.BackendLoadReported, now: float) -> None:
        backend = self._known(event.backend_id)
        if backend is not None:
            self._flights.reported(backend, event, now=now)
            self._fill([backend], now)

    def _on_joined(self, event: ev.BackendJoined, now: float) -> None:
        self._flights.forget_removed(now=now)
        backend = self._ledger.join(event.backend_id, event.models)
        self._breakers.joined(backend, now=now)
        self._fill([backend], now)

    def _on_left(self, event: ev.BackendLeft, now: float) -> None:
        if self._known(event.backend_id) is not None:
            self._ledger.leave(event.backend_id, for_good=event.for_good, now=now)
            self._breakers.closed()
            self._flights.forget_removed(now=now)
            self._fill(self._ledger.backends, now)

    def _on_policies_changed(self, policy: SchedulingPolicy, now: float) -> None:
        self._rules = self._make_rules(policy, self._rules)
        self._stages.reconfigure(self._rules)
        self._refusals.reconfigure(self._rules)
        self._arrivals.reconfigure(self._rules)
        self._knowledge.reconfigure(policy, now=now)
        self._fill(self._ledger.backends, now)

    def _fill(self, changed: Iterable[BackendState], now: float) -> None:
        if self._queue.requests:
            self._decisions += self._dispatcher.fill(changed, now=now)

    def _fill_reopened(self, now: float) -> None:
        """Servers that are no longer ejected may be open to requests that wait."""
        if self._breakers.reopened:
            self._breakers.reopened = False
            self._fill(self._ledger.backends, now)

    def _release(self, tracked: TrackedRequest, now: float) -> None:
        del self._tracked[tracked.request.id]
        self._fill([self._flights.end(tracked, now=now)], now)

    def _known(self, backend_id: BackendId) -> BackendState | None:
        backend = self._ledger.get(backend_id)
        if backend is None:
            self._ignored_events += 1
        return backend

    def _ending(self, request_id: RequestId, now: float) -> TrackedRequest | None:
        """The request in flight that ends; of one that was given up, it only frees the server."""
        tracked = self._tracked.get(request_id)
        if tracked is None or tracked.phase is RequestPhase.QUEUED:
            self._ignored_events += 1
            return None
        if tracked.phase is RequestPhase.EVICTED:
            self._release(tracked, now)
            self._refusals.preempt(self._preemption.for_waiting(now=now), now=now)
            return None
        return tracked
