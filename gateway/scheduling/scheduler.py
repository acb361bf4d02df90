"""The scheduler: facts in, orders out; one object per pool, live and simulated alike.

Contract
1. `handle(event, now=...)` is the only mutator. It never blocks, awaits, logs, reads a clock, or
   raises for something a peer did. Unknown or late ids are ignored and counted.
2. `now` never decreases; equal is allowed. A late or repeated DeadlinePassed is harmless.
3. Deciding reserves: the ledger and the request's phase change in the same call that returns the
   decision. Every stay in QUEUED ends in exactly one of Dispatch, Reject or Evict, unless a
   RequestCancelled came first. A request stays there once, and once more after each retryable
   DispatchFailed.
4. Every Dispatch is matched by exactly one of ResponseFinished, DispatchFailed, RequestCancelled,
   which releases it. In-flight counters cannot leak or go below zero, also when a server leaves
   and comes back.
5. Work-conserving: after `handle` returns, no head of a flow waits while a server is open for it.
6. Deterministic: dicts and lists only, ties by sequence number, random draws from the injected
   source, which depend only on the history of events.
7. Amortised O(log n) per event in queue length, O(servers) per dispatch. Chunks of responses never
   enter: the driver reports progress per server, at most 4 times a second.

Why a changed server is all that needs a look when something is released: by rule 5 every other
server was closed to every head before, and nothing about it has changed. Only a head that came up
because the one before it left is new to all servers.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import assert_never

from gateway.scheduling import events as ev
from gateway.scheduling.backend_ledger import BackendState
from gateway.scheduling.decisions import Decision, Dispatch, Evict, RefusalReason, Reject
from gateway.scheduling.explanations import Explanations
from gateway.scheduling.model import InferenceRequest, LLMService, RequestId, RequestPhase
from gateway.scheduling.policy import SchedulingPolicy
from gateway.scheduling.scheduler_parts import Knowledge, Rules
from gateway.scheduling.snapshot import Explanation, SchedulerSnapshot
from gateway.scheduling.snapshot_builder import take_snapshot
from gateway.scheduling.tracked_request import TrackedRequest


class Scheduler:
    """Decides for one pool; see the contract above."""

    def __init__(
        self, *, knowledge: Knowledge, rules: Rules, make_rules: Callable[[SchedulingPolicy], Rules]
    ) -> None:
        """Use build.build_scheduler. `make_rules` serves PoliciesChanged."""
        self._ledger = knowledge.ledger
        self._predictor = knowledge.predictor
        self._queue = knowledge.queue
        self._services = knowledge.services
        self._estimates = knowledge.estimates
        self._drain_rate = knowledge.drain_rate
        self._rules = rules
        self._make_rules = make_rules
        self._explanations = Explanations()
        self._tracked: dict[RequestId, TrackedRequest] = {}
        self._decisions: list[Decision] = []
        self._sequence = 0
        self._draining = False
        self._ignored_events = 0

    def handle(self, event: ev.SchedulerEvent, *, now: float) -> list[Decision]:  # noqa: C901, PLR0912 - an arm per event
        """Take in one fact; return the orders that follow from it, in order."""
        self._decisions = []
        match event:
            case ev.RequestArrived():
                self._on_arrived(event.request, now)
            case ev.FirstTokenReceived():
                self._on_first_token(event.request_id, now)
            case ev.ResponseProgressed():
                self._on_progressed(event)
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
                self._fill([self._ledger.join(event.backend_id, event.models)], now)
            case ev.BackendDraining() | ev.BackendLeft():
                self._on_server_closed(event)
            case ev.PoliciesChanged():
                self._on_policies_changed(event.policy, now)
            case ev.DrainStarted():
                self._draining = True
            case _:
                assert_never(event)
        return self._decisions

    def next_deadline(self) -> float | None:
        """When DeadlinePassed is due, or None while nothing waits."""
        return self._queue.next_expiry_at()

    def snapshot(self, *, now: float) -> SchedulerSnapshot:
        """The state at this instant, as plain data."""
        return take_snapshot(
            pool=self._rules.policy.pool.name,
            draining=self._draining,
            tracked_requests=len(self._tracked),
            ignored_events=self._ignored_events,
            parts=(self._queue, self._ledger, self._rules.capacity),
            now=now,
        )

    def explain(self, request_id: RequestId) -> Explanation | None:
        """Why a recent request was sent where it was, or None if unknown or never dispatched."""
        return self._explanations.find(request_id)

    # -- requests ---------------------------------------------------------------------------

    def _on_arrived(self, request: InferenceRequest, now: float) -> None:
        if request.id in self._tracked:
            self._ignored_events += 1
            return
        if self._draining:
            self._reject(request.id, RefusalReason.DRAINING, retry_after_s=1.0)
            return
        service = self._services.find(request.service)
        if service is None:
            self._reject(request.id, RefusalReason.UNKNOWN_MODEL)
            return
        target = self._services.draw_target(service, request.model)
        if target is None:
            self._reject(request.id, RefusalReason.NO_TARGET_MODEL)
            return
        if not self._ledger.knows(target) and not self._ledger.is_empty:
            self._reject(request.id, RefusalReason.UNKNOWN_MODEL)
            return
        self._sequence += 1
        tracked = TrackedRequest(
            request=request,
            service=service,
            target=target,
            arrived_at=now,
            sequence=self._sequence,
        )
        tracked.prompt_tokens = tracked.uncached_tokens = self._estimates.prompt_tokens(request)
        tracked.expected_output_tokens = self._estimates.output_tokens(request)
        tracked.expires_at = now + self._patience_s(service)
        if not self._queue.has_flow(tracked):
            backends = self._open_for(tracked, self._ledger.serving(target))
            if backends:
                self._tracked[request.id] = tracked
                self._dispatch(tracked, backends, now)
                return
        self._enqueue(tracked, now)

    def _enqueue(self, tracked: TrackedRequest, now: float) -> None:
        """Let an arrival wait, or refuse it: its patience is 0, or it fits no limit."""
        if tracked.expires_at <= now:
            tracked.enter(RequestPhase.REJECTED)
            self._reject(
                tracked.request.id,
                RefusalReason.NO_BACKEND if self._ledger.is_empty else RefusalReason.NO_CAPACITY,
                retry_after_s=self._retry_after(now),
            )
            return
        while not self._queue.has_room(tracked):
            displaced = self._queue.displaced_by(tracked)
            if displaced is None:
                tracked.enter(RequestPhase.REJECTED)
                self._reject(
                    tracked.request.id,
                    RefusalReason.QUEUE_FULL,
                    retry_after_s=self._retry_after(now),
                )
                return
            self._evict(displaced, RefusalReason.DISPLACED, now)
        self._tracked[tracked.request.id] = tracked
        self._queue.push(tracked)

    def _patience_s(self, service: LLMService) -> float:
        """How long a request of the service may wait."""
        timeout_s = self._rules.policy.queue.timeout_s
        own_s = service.max_queue_wait_s
        return timeout_s if own_s is None else min(timeout_s, own_s)

    def _on_first_token(self, request_id: RequestId, now: float) -> None:
        tracked = self._tracked.get(request_id)
        if tracked is None or tracked.phase is not RequestPhase.DISPATCHED:
            self._ignored_events += 1
            return
        tracked.enter(RequestPhase.STREAMING)
        tracked.first_token_at = now
        self._ledger.end_prefill(self._backend_of(tracked), tracked)

    def _on_progressed(self, event: ev.ResponseProgressed) -> None:
        backend = self._ledger.get(event.backend_id)
        if backend is None:
            self._ignored_events += 1
            return
        backend.last_chunk_at = event.last_chunk_at
        for request_id, stream_events in event.progress:
            tracked = backend.in_flight.get(request_id)
            if tracked is None:
                self._ignored_events += 1
                continue
            tokens = self._estimates.tokens_of_events(tracked.service.name, stream_events)
            self._ledger.progress(backend, tracked, tokens)

    def _on_finished(self, event: ev.ResponseFinished, now: float) -> None:
        tracked = self._in_flight(event.request_id)
        if tracked is None:
            return
        if event.ok:
            self._estimates.learn(tracked.request, event.usage)
        tracked.enter(RequestPhase.COMPLETED if event.ok else RequestPhase.FAILED)
        self._release(tracked, now)

    def _on_failed(self, event: ev.DispatchFailed, now: float) -> None:
        tracked = self._in_flight(event.request_id)
        if tracked is None:
            return
        backend = self._backend_of(tracked)
        self._ledger.release(backend, tracked, now=now)
        if not event.retryable or tracked.phase is not RequestPhase.DISPATCHED:
            tracked.enter(RequestPhase.FAILED)
            del self._tracked[event.request_id]
        elif self._may_retry(tracked, event.kind):
            tracked.enter(RequestPhase.QUEUED)
            self._queue.push(tracked)
            self._fill(self._ledger.backends, now)
            return
        else:
            self._give_up(tracked, RefusalReason.ATTEMPTS_EXHAUSTED, now)
        self._fill([backend], now)

    def _may_retry(self, tracked: TrackedRequest, kind: ev.FailureKind) -> bool:
        """Never on a server that was tried, within the attempts and the budget of all traffic."""
        if tracked.attempts >= self._rules.policy.retry.max_attempts:
            return False
        serving = self._ledger.serving(tracked.target)
        if serving and all(backend.id in tracked.tried for backend in serving):
            return False
        return self._rules.retries.spend(kind)

    def _on_cancelled(self, request_id: RequestId, now: float) -> None:
        tracked = self._tracked.get(request_id)
        if tracked is None:
            self._ignored_events += 1
            return
        was_queued = tracked.phase is RequestPhase.QUEUED
        tracked.enter(RequestPhase.CANCELLED)
        if was_queued:
            del self._tracked[request_id]
            self._queue.forget(tracked)
            self._fill(self._ledger.backends, now)
        else:
            self._release(tracked, now)

    def _on_deadline(self, now: float) -> None:
        expired = False
        while (tracked := self._queue.first_expired(now=now)) is not None:
            expired = True
            impatient = tracked.expires_at - tracked.arrived_at < self._rules.policy.queue.timeout_s
            reason = RefusalReason.QUEUE_TIMEOUT
            if self._ledger.is_empty:
                reason = RefusalReason.NO_BACKEND
            elif impatient:
                reason = RefusalReason.NO_CAPACITY
            self._evict(tracked, reason, now)
        if expired:
            self._fill(self._ledger.backends, now)

    # -- servers and policies ---------------------------------------------------------------

    def _on_load_reported(self, event: ev.BackendLoadReported, now: float) -> None:
        backend = self._ledger.get(event.backend_id)
        if backend is None:
            self._ignored_events += 1
            return
        self._ledger.report(backend, event.load, taken_at=event.taken_at)
        self._ledger.progress_unseen(backend, now=now)
        self._fill([backend], now)

    def _on_server_closed(self, event: ev.BackendDraining | ev.BackendLeft) -> None:
        if self._ledger.get(event.backend_id) is None:
            self._ignored_events += 1
        elif isinstance(event, ev.BackendDraining):
            self._ledger.drain(event.backend_id)
        else:
            self._ledger.leave(event.backend_id)

    def _on_policies_changed(self, policy: SchedulingPolicy, now: float) -> None:
        self._rules = self._make_rules(policy)
        self._services.reconfigure(policy.pool)
        self._queue.reconfigure(policy.queue)
        self._ledger.default_max_loras = policy.capacity.default_max_loras
        self._fill(self._ledger.backends, now)

    # -- what several events share ----------------------------------------------------------

    def _open_for(
        self, tracked: TrackedRequest, backends: Iterable[BackendState]
    ) -> list[BackendState]:
        is_open = self._rules.capacity.is_open
        if not tracked.tried:
            return [backend for backend in backends if is_open(backend, tracked)]
        return [b for b in backends if b.id not in tracked.tried and is_open(b, tracked)]

    def _fill(self, changed: Iterable[BackendState], now: float) -> None:
        """Dispatch waiting heads to servers that may have become open, until none fits."""
        is_full = self._rules.capacity.is_full
        surfaced: list[TrackedRequest] = []
        while self._queue.requests:
            changed = [b for b in changed if not is_full(b)]
            head, backends = self._next_dispatch(changed, surfaced, now)
            if head is None:
                return
            successor = self._queue.take_head(head)
            if successor is not None:
                surfaced.append(successor)
            self._dispatch(head, backends, now)

    def _next_dispatch(
        self, changed: Sequence[BackendState], surfaced: Sequence[TrackedRequest], now: float
    ) -> tuple[TrackedRequest | None, list[BackendState]]:
        """The next head to be served and the servers open for it; heads in order of entitlement.

        Heads in `surfaced` are compared with every server, the others with those that `changed`.
        """
        if changed or surfaced:
            for heads in self._queue.heads_by_priority():
                for head in self._rules.order.ordered(heads, now=now):
                    if head in surfaced:
                        backends = self._open_for(head, self._ledger.serving(head.target))
                    else:
                        takers = [b for b in changed if b.takes(head.target)]
                        backends = self._open_for(head, takers)
                    if backends:
                        return head, backends
        return None, []

    def _dispatch(
        self, tracked: TrackedRequest, backends: Sequence[BackendState], now: float
    ) -> None:
        backend, candidates = self._rules.picker.pick(tracked, backends, now=now)
        forecast = self._predictor.forecast(
            backend,
            prompt_tokens=tracked.prompt_tokens,
            uncached_tokens=tracked.uncached_tokens,
            output_tokens=tracked.expected_output_tokens,
            adapter=backend.adapter_of(tracked.target),
            now=now,
        )
        tracked.enter(RequestPhase.DISPATCHED)
        tracked.attempts += 1
        tracked.tried = (*tracked.tried, backend.id)
        tracked.forecast = forecast
        self._ledger.reserve(backend, tracked, now=now)
        self._drain_rate.count(now=now)
        if tracked.attempts == 1:
            self._rules.retries.earn()
        self._explanations.keep(tracked, candidates, self._ledger.serving(tracked.target), now)
        self._decisions.append(
            Dispatch(tracked.request.id, backend.id, tracked.target, forecast, tracked.attempts)
        )

    def _release(self, tracked: TrackedRequest, now: float) -> None:
        del self._tracked[tracked.request.id]
        backend = self._backend_of(tracked)
        self._ledger.release(backend, tracked, now=now)
        self._fill([backend], now)

    def _in_flight(self, request_id: RequestId) -> TrackedRequest | None:
        tracked = self._tracked.get(request_id)
        if tracked is None or tracked.phase is RequestPhase.QUEUED:
            self._ignored_events += 1
            return None
        return tracked

    def _backend_of(self, tracked: TrackedRequest) -> BackendState:
        backend = None if tracked.backend_id is None else self._ledger.get(tracked.backend_id)
        assert backend is not None, f"{tracked!r} is in flight nowhere"
        return backend

    def _reject(
        self, request_id: RequestId, reason: RefusalReason, *, retry_after_s: float | None = None
    ) -> None:
        self._decisions.append(Reject(request_id, reason, retry_after_s))

    def _evict(self, tracked: TrackedRequest, reason: RefusalReason, now: float) -> None:
        self._queue.forget(tracked)
        self._give_up(tracked, reason, now)

    def _give_up(self, tracked: TrackedRequest, reason: RefusalReason, now: float) -> None:
        tracked.enter(RequestPhase.EVICTED)
        del self._tracked[tracked.request.id]
        self._decisions.append(Evict(tracked.request.id, reason, self._retry_after(now)))

    def _retry_after(self, now: float) -> float:
        return self._drain_rate.retry_after_s(waiting=self._queue.requests, now=now)
