"""What must hold in a scheduler between any two events, recomputed from scratch.

This is the only place of the tests that looks inside; a change of the scheduler's make-up has to
change nothing else.
"""

from collections import Counter
from collections.abc import Sequence
from copy import deepcopy

from gateway.scheduling.backend_ledger import BackendState
from gateway.scheduling.decisions import Dispatch
from gateway.scheduling.model import BackendId, RequestPhase, is_critical
from gateway.scheduling.scheduler import Scheduler
from gateway.scheduling.tracked_request import TrackedRequest

_ON_A_SERVER = frozenset({RequestPhase.DISPATCHED, RequestPhase.STREAMING})


def assert_invariants(scheduler: Scheduler, *, now: float) -> None:
    """Every incremental count equals what a recount finds, and nobody waits without need."""
    for backend in scheduler._ledger.backends:
        _assert_counts_match(backend)
    _assert_each_request_is_in_one_place(scheduler)
    _assert_queue_counts_match(scheduler)
    assert_work_conserving(scheduler)
    _assert_snapshot_agrees(scheduler, now=now)


def assert_everything_is_released(scheduler: Scheduler) -> None:
    """Nothing is tracked, queued or counted anywhere."""
    assert not scheduler._tracked
    assert (scheduler._queue.requests, scheduler._queue.bytes) == (0, 0)
    assert scheduler.next_deadline() is None
    for backend in scheduler._ledger.backends:
        assert _counts(backend) == (0, 0, 0, 0, 0), backend
        assert not backend.in_flight
        assert not backend.unseen
        assert not backend.adapters.active


def queued(scheduler: Scheduler) -> list[TrackedRequest]:
    """All requests that wait, oldest first."""
    waiting = [t for t in scheduler._tracked.values() if t.phase is RequestPhase.QUEUED]
    return sorted(waiting, key=lambda t: (t.arrived_at, t.sequence))


def on_servers(scheduler: Scheduler) -> dict[str, BackendId | None]:
    """Request -> server, of all that are in flight."""
    return {
        t.request.id: t.backend_id for t in scheduler._tracked.values() if t.phase in _ON_A_SERVER
    }


def assert_work_conserving(scheduler: Scheduler) -> None:
    """No head of a flow waits while a server that it has not tried is open for it."""
    for head in _heads(scheduler):
        waiting_for_nothing = [
            backend
            for backend in scheduler._ledger.serving(head.target)
            if backend.id not in head.tried and scheduler._rules.capacity.is_open(backend, head)
        ]
        assert not waiting_for_nothing, f"{head} waits while {waiting_for_nothing} are open"


def assert_in_order(scheduler: Scheduler, dispatches: Sequence[Dispatch], *, now: float) -> None:
    """Nobody was dispatched past an older one of its flow, or past a head of higher priority.

    `dispatches` are those of the newest event, in order.
    """
    heads = _heads(scheduler)
    for position, dispatch in enumerate(dispatches):
        served = scheduler._tracked[dispatch.request_id]
        older = [
            t
            for t in queued(scheduler)
            if _flow(t) == (*_flow(served)[:3], served.tried[:-1])
            and (t.arrived_at, t.sequence) < (served.arrived_at, served.sequence)
        ]
        assert not older, f"{served} went before {older}"
        undone = [d for d in dispatches[position:] if d.backend_id == dispatch.backend_id]
        entitled = [
            head
            for head in heads
            if head.service.priority > served.service.priority
            and _was_open(scheduler, undone, head, now=now)
        ]
        assert not entitled, f"{served} went before {entitled}"


def assert_caches_hold(scheduler: Scheduler, dispatches: Sequence[Dispatch]) -> None:
    """Every server just dispatched to has KV cache for all it runs, or runs one request alone."""
    for dispatch in dispatches:
        backend = scheduler._ledger.get(dispatch.backend_id)
        assert backend is not None
        capacity = backend.kv_capacity_tokens
        assert (
            capacity is None
            or backend.kv_reserved_tokens <= capacity
            or len(backend.in_flight) == 1
        ), f"{backend} holds {backend.kv_reserved_tokens} of {capacity} tokens"


def _was_open(
    scheduler: Scheduler, undone: list[Dispatch], head: TrackedRequest, *, now: float
) -> bool:
    """Whether the head could have had the server of these dispatches instead of them."""
    original = scheduler._ledger.get(undone[0].backend_id)
    assert original is not None
    if original.id in head.tried or original not in scheduler._ledger.serving(head.target):
        return False
    if any(d.model in (original.load.active_adapters or ()) for d in undone):
        return False  # others use the adapter too, and undoing would free a slot of theirs
    backend = deepcopy(original)
    for dispatch in undone:
        scheduler._ledger.release(backend, backend.in_flight[dispatch.request_id], now=now)
    return scheduler._rules.capacity.is_open(backend, head)


def _flow(tracked: TrackedRequest) -> tuple[int, str, str, tuple[BackendId, ...]]:
    """What a request waits in: one service, one model, one set of servers left to try."""
    service = tracked.service
    return (service.priority, service.name, tracked.target, tracked.tried)


def _heads(scheduler: Scheduler) -> list[TrackedRequest]:
    first: dict[tuple[int, str, str, tuple[BackendId, ...]], TrackedRequest] = {}
    for tracked in queued(scheduler):
        first.setdefault(_flow(tracked), tracked)
    return list(first.values())


def _counts(backend: BackendState) -> tuple[int, int, int, int, int]:
    return (
        backend.sequences,
        backend.decoding,
        backend.context_tokens,
        backend.pending_prefill_tokens,
        backend.kv_reserved_tokens,
    )


def _assert_counts_match(backend: BackendState) -> None:
    requests = list(backend.in_flight.values())
    decoding = [t for t in requests if not t.prefill_pending]
    assert _counts(backend) == (
        sum(t.request.choices for t in requests),
        sum(t.request.choices for t in decoding),
        sum(t.prompt_tokens * t.request.choices + t.output_tokens for t in decoding),
        sum(t.uncached_tokens for t in requests if t.prefill_pending),
        sum(t.prompt_tokens + t.expected_output_tokens for t in requests),
    ), backend
    adapters = Counter(t.adapter for t in requests if t.adapter is not None)
    assert backend.adapters.active == dict(adapters), backend
    assert set(adapters) <= set(backend.adapters.resident), backend
    assert backend.unseen == {t.request.id: t for t in requests if not t.request.streamed}
    assert backend.external_running >= 0.0


def _assert_each_request_is_in_one_place(scheduler: Scheduler) -> None:
    counted = {
        request_id: backend.id
        for backend in scheduler._ledger.backends
        for request_id in backend.in_flight
    }
    assert counted == on_servers(scheduler)
    assert sum(len(b.in_flight) for b in scheduler._ledger.backends) == len(counted)
    assert all(
        t.phase in _ON_A_SERVER or t.phase is RequestPhase.QUEUED
        for t in scheduler._tracked.values()
    ), "a request that ended is still tracked"


def _assert_queue_counts_match(scheduler: Scheduler) -> None:
    queue = scheduler._queue
    waiting = queued(scheduler)
    critical = [t for t in waiting if is_critical(t.service.priority)]
    assert queue.requests == len(waiting)
    assert queue.bytes == sum(t.request.body_bytes for t in waiting)
    assert queue.critical_requests == len(critical)
    assert queue.critical_bytes == sum(t.request.body_bytes for t in critical)
    assert queue.depth_by_service() == dict(
        Counter((t.service.priority, t.service.name) for t in waiting)
    )
    assert scheduler.next_deadline() == min((t.expires_at for t in waiting), default=None)


def _assert_snapshot_agrees(scheduler: Scheduler, *, now: float) -> None:
    snapshot = scheduler.snapshot(now=now)
    assert snapshot.tracked_requests == len(scheduler._tracked)
    assert snapshot.queued_requests == sum(q.requests for q in snapshot.queues)
    assert snapshot.tracked_requests == snapshot.queued_requests + sum(
        backend.requests for backend in snapshot.backends
    )
