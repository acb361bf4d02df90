"""What must hold in a scheduler between any two events, recomputed from scratch.

This is the only place of the tests that looks inside; a change of the scheduler's make-up has to
change nothing else.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy

from gateway.scheduling import backend_state
from gateway.scheduling.admission_queue import lane_of
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.decisions import Dispatch
from gateway.scheduling.model import BackendId, RequestPhase, is_critical
from gateway.scheduling.scheduler import Scheduler
from gateway.scheduling.tracked_request import TrackedRequest
from gateway.scheduling.turns import is_kept

_COMPILED = not str(backend_state.__file__).endswith(".py")
_ON_A_SERVER = frozenset({RequestPhase.DISPATCHED, RequestPhase.STREAMING, RequestPhase.EVICTED})
"""One that was given up there is counted until its stream is known to be closed."""


def assert_invariants(scheduler: Scheduler, *, now: float) -> None:
    """Every incremental count equals what a recount finds, and nobody waits without need."""
    for backend in scheduler._ledger.backends:
        _assert_counts_match(backend)
        _assert_outlook_is_fresh(scheduler, backend, now=now)
    _assert_each_request_is_in_one_place(scheduler)
    _assert_queue_counts_match(scheduler)
    _assert_holds_are_for_those_who_wait(scheduler)
    _assert_snapshot_agrees(scheduler, now=now)
    _assert_only_known_servers_are_remembered(scheduler)


def assert_everything_is_released(scheduler: Scheduler) -> None:
    """Nothing is tracked, queued or counted anywhere."""
    assert not scheduler._tracked
    assert (scheduler._queue.requests, scheduler._queue.bytes) == (0, 0)
    assert scheduler.next_deadline() is None
    for backend in scheduler._ledger.backends:
        assert _counts(backend) == (0, 0, 0, 0, 0, 0), backend
        assert not backend.in_flight
        assert not backend.unseen
        assert not backend.adapters.active
        assert not backend.tpot_bounds
        assert backend.hold is None


def queued(scheduler: Scheduler) -> list[TrackedRequest]:
    """All requests that wait, oldest first."""
    waiting = [t for t in scheduler._tracked.values() if t.phase is RequestPhase.QUEUED]
    return sorted(waiting, key=lambda t: (t.arrived_at, t.sequence))


def on_servers(scheduler: Scheduler) -> dict[str, BackendId | None]:
    """Request -> server, of all that are in flight."""
    return {
        t.request.id: t.backend_id for t in scheduler._tracked.values() if t.phase in _ON_A_SERVER
    }


def open_but_waiting(
    scheduler: Scheduler, *, now: float, despite_shares: bool = False, despite_demand: bool = False
) -> set[tuple[str, str]]:
    """(request, server) where the head of a flow waits, though the server is open for it.

    Except where the server is kept for a request that others went before or for a late one, left by
    one that goes first to those whose prompts it holds, or left by a service above its `max_share`
    to others.
    `despite_shares` and `despite_demand` find those as well that only such a share, or the demand
    of Critical services, keeps waiting.
    """
    heads = _heads(scheduler)
    capacity = scheduler._rules.capacity
    headroom = capacity._headroom
    if despite_demand:
        capacity._headroom = None
    found: set[tuple[str, str]] = {
        (head.request.id, backend.id)
        for head in heads
        for backend in scheduler._ledger.serving(head.target)
        if not backend.failed(head)
        and not _is_kept(scheduler, backend, head, heads)
        and (despite_shares or not _is_left_by_share(scheduler, backend, head, heads, now=now))
        and not _is_left(scheduler, backend, head, heads, now=now)
        and _is_open(scheduler, backend, head, now=now)
    }
    capacity._headroom = headroom
    return found


def _is_open(
    scheduler: Scheduler, backend: BackendState, head: TrackedRequest, *, now: float
) -> bool:
    with _without_trace(scheduler, backend):
        return bool(scheduler._turns.open_for(head, [backend], now=now))


@contextmanager
def _without_trace(scheduler: Scheduler, backend: BackendState) -> Iterator[None]:
    """Looking at a server for the first time fixes what its forecasts start from: undo that."""
    pool = scheduler._flights._predictor._timings
    timings, start = dict(pool._timings), (pool._start, pool._start_until)
    kept = backend.outlook, backend.glance, backend.fresh_until
    yield
    backend.outlook, backend.glance, backend.fresh_until = kept
    pool._timings, (pool._start, pool._start_until) = timings, start


def _is_left(
    scheduler: Scheduler,
    backend: BackendState,
    head: TrackedRequest,
    heads: Sequence[TrackedRequest],
    *,
    now: float,
) -> bool:
    before = [other for other in heads if lane_of(other) > lane_of(head) and other.home is not None]
    with _without_trace(scheduler, backend):
        able = [
            other
            for other in before
            if backend in scheduler._ledger.serving(other.target)
            and scheduler._turns._able(other, [backend], now=now)
        ]
    return any(not _is_open(scheduler, backend, other, now=now) for other in able)


def _is_left_by_share(
    scheduler: Scheduler,
    backend: BackendState,
    head: TrackedRequest,
    heads: Sequence[TrackedRequest],
    *,
    now: float,
) -> bool:
    others = [
        other
        for other in heads
        if lane_of(other) >= lane_of(head)
        and not other.late
        and other.service.name != head.service.name
    ]
    return scheduler._rules.order.goes_behind(head, now=now) and is_kept(backend, others)


def _is_kept(
    scheduler: Scheduler,
    backend: BackendState,
    head: TrackedRequest,
    heads: Sequence[TrackedRequest],
) -> bool:
    return any(
        other is not head
        and (other.overtaken > 0 or _is_late_before(scheduler, other, head, heads))
        and is_kept(backend, [other])
        for other in heads
    )


def _is_late_before(
    scheduler: Scheduler,
    other: TrackedRequest,
    head: TrackedRequest,
    heads: Sequence[TrackedRequest],
) -> bool:
    """Whether a late one keeps its servers from Non-Critical ones, for others there are in time."""
    if not other.late or is_critical(head.service.priority):
        return False
    used = set(scheduler._ledger.serving(other.target))
    return any(
        is_critical(each.service.priority)
        and not each.late
        and used.intersection(scheduler._ledger.serving(each.target))
        for each in heads
    )


def used_by_others(scheduler: Scheduler) -> frozenset[tuple[BackendId, str]]:
    """(server, adapter) of the slots that are believed to be in use by nobody of ours."""
    return frozenset(
        (backend.id, adapter)
        for backend in scheduler._ledger.backends
        for adapter in backend.adapters._external
    )


def assert_in_order(
    scheduler: Scheduler,
    dispatches: Sequence[Dispatch],
    *,
    shared: frozenset[tuple[BackendId, str]],
    now: float,
) -> None:
    """Nobody was dispatched past an older one of its flow, or past a head of higher priority.

    `dispatches` are those of the newest event, in order; `shared` what `used_by_others` said
    before it.
    """
    heads = _heads(scheduler)
    for position, dispatch in enumerate(dispatches):
        served = scheduler._tracked[dispatch.request_id]
        older = [
            t
            for t in queued(scheduler)
            if _flow(t) == (*_flow(served)[:6], served.tried[:-1])
            and (t.arrived_at, t.sequence) < (served.arrived_at, served.sequence)
        ]
        assert not older, f"{served} went before {older}"
        undone = [d for d in dispatches[position:] if d.backend_id == dispatch.backend_id]
        entitled = [
            head
            for head in heads
            if _goes_before(head, served)
            and not _is_kept(scheduler, _server_of(scheduler, dispatch), head, heads)
            and _was_open(scheduler, undone, head, shared=shared, now=now)
        ]
        assert not entitled, f"{served} went before {entitled}"


def assert_caches_hold(scheduler: Scheduler, dispatches: Sequence[Dispatch]) -> None:
    """Every server just dispatched to has KV cache for all it runs, or runs one request alone.

    A prompt that is longer than the whole cache counts for nothing: the server refuses it.
    """
    for dispatch in dispatches:
        backend = _server_of(scheduler, dispatch)
        capacity = backend.kv_capacity_tokens
        sent = scheduler._tracked[dispatch.request_id]
        if capacity is None or sent.prompt_tokens > capacity:
            continue
        running = [t for t in backend.in_flight.values() if t.prompt_tokens <= capacity]
        tokens = sum(t.prompt_tokens + t.expected_output_tokens for t in running)
        tokens -= backend.shared.saved_tokens
        assert tokens <= capacity or len(running) == 1, (
            f"{backend} holds {backend.kv_reserved_tokens} of {capacity} tokens"
        )


def _goes_before(head: TrackedRequest, other: TrackedRequest) -> bool:
    """Whether the priorities alone decide; late Critical requests have a share of their own."""
    if is_critical(head.service.priority) != is_critical(other.service.priority):
        return is_critical(head.service.priority)
    return head.service.priority > other.service.priority and head.late == other.late


def _server_of(scheduler: Scheduler, dispatch: Dispatch) -> BackendState:
    backend = scheduler._ledger.get(dispatch.backend_id)
    assert backend is not None
    return backend


def _was_open(
    scheduler: Scheduler,
    undone: list[Dispatch],
    head: TrackedRequest,
    *,
    shared: frozenset[tuple[BackendId, str]],
    now: float,
) -> bool:
    """Whether the head could have had the server of these dispatches instead of them."""
    original = _server_of(scheduler, undone[0])
    if original.failed(head) or original not in scheduler._ledger.serving(head.target):
        return False
    told = original.load.active_adapters or ()
    if any(d.model in told or (original.id, d.model) in shared for d in undone):
        return False  # others use the adapter too, and undoing would free a slot of theirs
    if _COMPILED:
        return False  # compiled objects cannot be copied
    backend = deepcopy(original)
    for dispatch in undone:
        scheduler._ledger.release(backend, backend.in_flight[dispatch.request_id], now=now)
    return _is_open(scheduler, backend, head, now=now)


_Flow = tuple[int, bool, str, str, int, BackendId | None, tuple[tuple[BackendId, int], ...]]


def _flow(tracked: TrackedRequest) -> _Flow:
    """What a request waits in: one service, one model, one set of servers left to try."""
    service = tracked.service
    late = tracked.late and is_critical(service.priority)
    return (
        service.priority,
        late,
        service.name,
        tracked.target,
        tracked.sub_flow,
        tracked.home,
        tracked.tried,
    )


def _heads(scheduler: Scheduler) -> list[TrackedRequest]:
    first: dict[_Flow, TrackedRequest] = {}
    for tracked in queued(scheduler):
        first.setdefault(_flow(tracked), tracked)
    return list(first.values())


def _counts(backend: BackendState) -> tuple[int, int, int, int, int, int]:
    return (
        backend.sequences,
        backend.decoding,
        backend.context_tokens,
        backend.pending_prefill_tokens,
        backend.kv_reserved_tokens,
        backend.expected_output_tokens,
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
        sum(t.expected_output_tokens for t in requests),
    ), backend
    assert sum(backend.shared._users.values()) == sum(
        len(t.request.prefix_blocks) // 8 for t in requests
    )
    adapters = Counter(t.adapter for t in requests if t.adapter is not None)
    assert backend.adapters.active == dict(adapters), backend
    assert set(adapters) <= set(backend.adapters.resident), backend
    assert backend.unseen == {t.request.id: t for t in requests if not t.request.streamed}
    assert backend.tpot_bounds == dict(
        Counter(t.tpot_bound_s for t in requests if t.tpot_bound_s is not None)
    )
    assert backend.strictest_tpot_s == min(backend.tpot_bounds, default=float("inf"))
    assert backend.external_running >= 0.0
    load = backend.adapters
    assert load.crowding == load.slots_in_use / max(1, load.max_loras)


def _assert_outlook_is_fresh(scheduler: Scheduler, backend: BackendState, *, now: float) -> None:
    """What is believed to hold still holds, but for the rates of prefills, which are forgotten."""
    if now >= backend.fresh_until:
        return
    believed = backend.outlook
    with _without_trace(scheduler, backend):
        scheduler._flights._predictor._look(backend, now)
        anew = backend.outlook._replace(
            stretch=believed.stretch, recent_share=believed.recent_share
        )
    assert anew == believed, f"{backend} has changed"


def _assert_holds_are_for_those_who_wait(scheduler: Scheduler) -> None:
    held = {
        backend.id: backend.hold.holder.request.id
        for backend in scheduler._ledger.backends
        if backend.hold is not None
    }
    assert held == {t.held_at: t.request.id for t in queued(scheduler) if t.held_at is not None}
    charged = Counter(
        t.service.name for t in scheduler._tracked.values() if t.miss_probability is not None
    )
    for service in scheduler._adherence.services():
        adherence = scheduler._adherence.of(service)
        assert adherence.in_flight == charged[service]
        assert adherence.expected_misses >= -1e-9


def _assert_only_known_servers_are_remembered(scheduler: Scheduler) -> None:
    ledger = scheduler._ledger
    known = {backend.id for backend in ledger.backends}
    away = {backend.id for backend in ledger.backends if not backend.usable}
    assert set(scheduler._flights._predictor._timings) <= known
    assert set(ledger._removed_at) <= away
    for holders in ledger._holders._holders.values():
        assert set(holders) <= known


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
    due = [t.expires_at for t in waiting] + [t.late_at for t in waiting if not t.late]
    if due:
        due.append(scheduler._breakers.opens_at)
    assert scheduler.next_deadline() == min(due, default=None)


def _assert_snapshot_agrees(scheduler: Scheduler, *, now: float) -> None:
    snapshot = scheduler.snapshot(now=now)
    assert snapshot.tracked_requests == len(scheduler._tracked)
    assert snapshot.queued_requests == sum(q.requests for q in snapshot.queues)
    assert snapshot.tracked_requests == snapshot.queued_requests + sum(
        backend.requests for backend in snapshot.backends
    )
