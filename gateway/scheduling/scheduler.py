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
from gateway.scheduling.admission_queue import LATE, Lane
from gateway.scheduling.backend_ledger import BackendState
from gateway.scheduling.backend_picker import miss_probability
from gateway.scheduling.bounds import set_bounds
from gateway.scheduling.capacity import OpenServer
from gateway.scheduling.decisions import Decision, Dispatch, Evict, RefusalReason, Reject
from gateway.scheduling.explanations import Explanations
from gateway.scheduling.model import (
    BackendId,
    LLMService,
    RequestId,
    RequestPhase,
    TokenUsage,
    is_critical,
)
from gateway.scheduling.policy import SchedulingPolicy
from gateway.scheduling.scheduler_parts import Knowledge, Rules
from gateway.scheduling.snapshot import Explanation, SchedulerSnapshot
from gateway.scheduling.snapshot_builder import take_snapshot
from gateway.scheduling.tracked_request import TrackedRequest

_MOST_OVERTAKEN = 1
_HEADS_WATCHED = 8


def _is_kept(backend: BackendState, entitled: Sequence[TrackedRequest]) -> bool:
    """Whether one of those that go first will be able to use what is left of the server."""
    return any(
        backend.takes(head.target)
        and backend.id not in head.tried
        and backend.has_slot_for(head.target)
        for head in entitled
    )


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
        self._adherence = knowledge.adherence
        self._late_credit_tokens = 0.0
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
        expiry_at = self._queue.next_expiry_at()
        late_at = self._queue.next_late_at()
        if expiry_at is None or late_at is None:
            return expiry_at
        return min(expiry_at, late_at)

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

    def _on_arrived(self, event: ev.RequestArrived, now: float) -> None:
        request = event.request
        self._see_chunks(event.last_chunks)
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
        if request.prefix_blocks and request.prompt_bytes:
            share = request.prefix_block_bytes / request.prompt_bytes
            tracked.block_tokens = tracked.prompt_tokens * share
        tracked.expected_output_tokens = self._estimates.output_tokens(request)
        tracked.expires_at = now + self._patience_s(service)
        set_bounds(tracked, self._rules.policy.pool.default_objective)
        if not self._queue.has_flow(tracked):
            servers = self._open_for(tracked, self._ledger.serving(target), now)
            if servers:
                self._tracked[request.id] = tracked
                self._dispatch(tracked, servers, now)
                return
        self._enqueue(tracked, now)

    def _see_chunks(self, last_chunks: Sequence[tuple[BackendId, float]]) -> None:
        for backend_id, at in last_chunks:
            backend = self._ledger.get(backend_id)
            if backend is not None:
                self._predictor.chunk_seen(backend, at)

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
        if self._would_wait_too_long(tracked, now):
            tracked.enter(RequestPhase.REJECTED)
            self._adherence.settle(tracked, missed=True, now=now)
            self._reject(
                tracked.request.id, RefusalReason.NO_CAPACITY, retry_after_s=self._retry_after(now)
            )
            return
        servers_kept = False
        while not self._queue.has_room(tracked):
            displaced = self._queue.displaced_by(tracked)
            if displaced is None:
                tracked.enter(RequestPhase.REJECTED)
                self._adherence.settle(tracked, missed=True, now=now)
                self._reject(
                    tracked.request.id,
                    RefusalReason.QUEUE_FULL,
                    retry_after_s=self._retry_after(now),
                )
                return
            servers_kept = servers_kept or displaced.overtaken >= _MOST_OVERTAKEN
            self._evict(displaced, RefusalReason.DISPLACED, now)
        self._tracked[tracked.request.id] = tracked
        self._wait(tracked, now)
        # A late request gains nothing by waiting: the best of the open servers will do.
        if tracked.late or servers_kept:
            self._fill(self._ledger.backends, now)

    def _wait(self, tracked: TrackedRequest, now: float) -> None:
        """Put a request into the queue; what is late already goes to its late lane."""
        if not self._queue.requests:
            self._drain_rate.queue_began(now=now)
        self._rules.order.waits(tracked, self._queue.waiting_services())
        self._set_late_at(tracked, now)
        if tracked.late_at <= now:
            tracked.late = True
            self._adherence.settle(tracked, missed=True, now=now)
        self._queue.push(tracked)

    def _set_late_at(self, tracked: TrackedRequest, now: float) -> None:
        """The instant from which, as things stand, its first token would come too late."""
        tracked.late_at = float("inf")
        serving = self._ledger.serving(tracked.target)
        if tracked.service.objective is not None and serving:
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
        backend = self._backend_of(tracked)
        self._ledger.end_prefill(backend, tracked)
        self._predictor.first_token(backend, tracked, now=now)
        objective = tracked.service.objective
        ttft_s = None if objective is None else objective.ttft_s
        if ttft_s is not None and now - tracked.arrived_at > ttft_s:
            self._adherence.settle(tracked, missed=True, now=now)
        self._fill([backend], now)

    def _on_progressed(self, event: ev.ResponseProgressed, now: float) -> None:
        backend = self._ledger.get(event.backend_id)
        if backend is None:
            self._ignored_events += 1
            return
        self._predictor.chunk_seen(backend, event.last_chunk_at)
        streams = 0
        grown = 0.0
        for request_id, stream_events in event.progress:
            tracked = backend.in_flight.get(request_id)
            if tracked is None:
                self._ignored_events += 1
                continue
            tokens = self._estimates.tokens_of_events(tracked.service.name, stream_events)
            if tracked.output_tokens:
                streams += 1
                grown += (tokens - tracked.output_tokens) / tracked.request.choices
            self._ledger.progress(backend, tracked, tokens)
        self._predictor.progressed(
            backend, streams=streams, tokens=grown, last_chunk_at=event.last_chunk_at
        )
        self._fill([backend], now)

    def _on_finished(self, event: ev.ResponseFinished, now: float) -> None:
        tracked = self._in_flight(event.request_id)
        if tracked is None:
            return
        tokens = 0
        if event.ok:
            tokens = self._learn_answer(tracked, event.usage, now)
            objective = tracked.service.objective
            first_at = tracked.first_token_at
            met = objective is None or objective.is_met(
                ttft_s=None if first_at is None else first_at - tracked.arrived_at,
                e2e_s=now - tracked.arrived_at,
                output_tokens=tokens,
            )
            self._adherence.settle(tracked, missed=not met, now=now)
        self._rules.order.served(tracked, output_tokens=tokens - tracked.expected_output_tokens)
        tracked.enter(RequestPhase.COMPLETED if event.ok else RequestPhase.FAILED)
        self._release(tracked, now)

    def _on_failed(self, event: ev.DispatchFailed, now: float) -> None:
        tracked = self._in_flight(event.request_id)
        if tracked is None:
            return
        backend = self._backend_of(tracked)
        self._withdraw(backend, tracked, now)
        if not event.retryable or tracked.phase is not RequestPhase.DISPATCHED:
            tracked.enter(RequestPhase.FAILED)
            del self._tracked[event.request_id]
        elif self._may_retry(tracked, event.kind):
            tracked.enter(RequestPhase.QUEUED)
            self._wait(tracked, now)
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
            self._end_hold(tracked)
            self._queue.forget(tracked)
            self._fill(self._ledger.backends, now)
        else:
            self._release(tracked, now)

    def _on_deadline(self, now: float) -> None:
        expired = self._notice_late(now)
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

    def _notice_late(self, now: float) -> bool:
        """Move Critical requests that became late behind the others, refuse Non-Critical ones."""
        noticed = False
        while (tracked := self._queue.first_late(now=now)) is not None:
            noticed = True
            self._adherence.settle(tracked, missed=True, now=now)
            if is_critical(tracked.service.priority):
                self._end_hold(tracked)
                self._queue.make_late(tracked)
            else:
                self._evict(tracked, RefusalReason.NO_CAPACITY, now)
        return noticed

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
        self, tracked: TrackedRequest, backends: Iterable[BackendState], now: float
    ) -> list[OpenServer]:
        if tracked.tried:
            backends = [backend for backend in backends if backend.id not in tracked.tried]
        return self._rules.capacity.open_among(tracked, backends, now=now)

    def _fill(self, changed: Iterable[BackendState], now: float) -> None:
        """Dispatch waiting heads to servers that may have become open, until none fits."""
        is_full = self._rules.capacity.is_full
        surfaced: list[TrackedRequest] = []
        while self._queue.requests:
            changed = [b for b in changed if not is_full(b)]
            head, servers = self._next_dispatch(changed, surfaced, now)
            if head is None:
                return
            self._end_hold(head)
            if head.overtaken >= _MOST_OVERTAKEN:
                changed = self._ledger.backends  # they are no longer kept for it
            successor = self._queue.take_head(head)
            if successor is not None:
                surfaced.append(successor)
            self._dispatch(head, servers, now)

    def _next_dispatch(
        self, changed: Sequence[BackendState], surfaced: Sequence[TrackedRequest], now: float
    ) -> tuple[TrackedRequest | None, list[OpenServer]]:
        """The next head to be served and the servers open for it; heads in order of entitlement.

        Heads in `surfaced` are compared with every server, the others with those that `changed`.
        A head that was overtaken too often keeps the later ones off the servers it waits for.
        """
        passed: list[TrackedRequest] = []
        entitled: list[TrackedRequest] = []
        if changed or surfaced:
            for lane in self._lanes():
                for head in self._rules.order.ordered(self._queue.heads(lane), now=now):
                    takers: Iterable[BackendState]
                    if head in surfaced:
                        takers = self._ledger.serving(head.target)
                    else:
                        takers = [b for b in changed if b.takes(head.target)]
                    if entitled:
                        takers = [b for b in takers if not _is_kept(b, entitled)]
                    servers = self._open_for(head, takers, now)
                    if servers:
                        self._note_overtaken(passed)
                        return head, servers
                    passed.append(head)
                    if head.overtaken >= _MOST_OVERTAKEN and not head.late:
                        entitled.append(head)
        return None, []

    def _note_overtaken(self, passed: Sequence[TrackedRequest]) -> None:
        """Count it; let an adapter drain for the first who waits for a slot for too long."""
        for head in passed[:_HEADS_WATCHED]:
            head.overtaken += 1
        for head in passed[:_HEADS_WATCHED]:
            if head.held_at is None and not head.late and head.overtaken >= _MOST_OVERTAKEN:
                serving = self._ledger.serving(head.target)
                held = self._rules.capacity.place_hold(head, serving)
                if held is not None:
                    head.held_at = held.id
                    return

    def _end_hold(self, tracked: TrackedRequest) -> None:
        """Free the server that was kept for a request which no longer waits for it."""
        if tracked.held_at is not None:
            backend = self._ledger.get(tracked.held_at)
            assert backend is not None, f"{tracked!r} holds a server that never joined"
            tracked.held_at = None
            backend.hold = None

    def _lanes(self) -> list[Lane]:
        """Lanes in order of service: late ones first only while they have credit."""
        lanes = self._queue.lanes()
        if self._late_credit_tokens > 0.0:
            lanes.sort(key=lambda lane: lane[0] == LATE, reverse=True)
        return lanes

    def _charge_lanes(self, tracked: TrackedRequest) -> None:
        """Let late requests earn their share of the tokens dispatched, and spend it."""
        tokens = float(tracked.prompt_tokens + tracked.expected_output_tokens)
        if tracked.late:
            self._late_credit_tokens -= tokens
        elif is_critical(tracked.service.priority):
            earned = self._rules.policy.fairness.late_share * tokens
            self._late_credit_tokens = min(tokens, self._late_credit_tokens + earned)

    def _dispatch(self, tracked: TrackedRequest, servers: Sequence[OpenServer], now: float) -> None:
        (backend, prediction), candidates = self._rules.picker.pick(tracked, servers, now=now)
        tracked.enter(RequestPhase.DISPATCHED)
        tracked.attempts += 1
        tracked.tried = (*tracked.tried, backend.id)
        tracked.prediction = prediction
        tracked.uncached_tokens = prediction.uncached_tokens
        self._predictor.dispatched(backend, tracked, now=now)
        self._ledger.reserve(backend, tracked, now=now)
        self._drain_rate.dispatched(critical=is_critical(tracked.service.priority), now=now)
        if self._queue.requests:
            self._charge_lanes(tracked)
        self._adherence.dispatched(tracked, miss_probability(tracked, prediction, now=now))
        self._rules.order.served(tracked, output_tokens=tracked.expected_output_tokens)
        if tracked.attempts == 1:
            self._rules.retries.earn()
        self._explanations.keep(tracked, candidates, self._ledger.serving(tracked.target), now)
        self._decisions.append(
            Dispatch(
                tracked.request.id,
                backend.id,
                tracked.target,
                prediction.forecast(),
                tracked.attempts,
            )
        )

    def _learn_answer(self, tracked: TrackedRequest, usage: TokenUsage, now: float) -> int:
        """Learn from a complete answer: token counts, and its pace; return its tokens."""
        self._estimates.learn(tracked.request, usage)
        tokens = usage.completion_tokens or self._estimates.tokens_of_events(
            tracked.service.name, usage.events
        )
        gaps = tokens / tracked.request.choices - 1.0
        began_at = tracked.first_token_at
        if began_at is None and tracked.prediction is not None:
            began_at = tracked.dispatched_at + tracked.prediction.ttft_s
        if gaps >= 1.0 and began_at is not None and now > began_at:
            self._predictor.finished(self._backend_of(tracked), tracked, (now - began_at) / gaps)
        return tokens

    def _withdraw(self, backend: BackendState, tracked: TrackedRequest, now: float) -> None:
        """Release a request that ends before its answer is complete."""
        if tracked.prefill_pending:
            self._predictor.withdrawn(backend, tracked)
            self._predictor.gave_up(backend, tracked, now=now)
        self._adherence.withdrawn(tracked)
        self._ledger.release(backend, tracked, now=now)

    def _release(self, tracked: TrackedRequest, now: float) -> None:
        del self._tracked[tracked.request.id]
        backend = self._backend_of(tracked)
        self._withdraw(backend, tracked, now)
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
        self._adherence.settle(tracked, missed=True, now=now)
        self._end_hold(tracked)
        self._queue.forget(tracked)
        self._give_up(tracked, reason, now)

    def _give_up(self, tracked: TrackedRequest, reason: RefusalReason, now: float) -> None:
        tracked.enter(RequestPhase.EVICTED)
        del self._tracked[tracked.request.id]
        self._decisions.append(Evict(tracked.request.id, reason, self._retry_after(now)))

    def _retry_after(self, now: float) -> float:
        return self._drain_rate.retry_after_s(waiting=self._queue.requests, now=now)
