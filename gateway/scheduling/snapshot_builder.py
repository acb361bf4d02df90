"""Makes a SchedulerSnapshot from the live parts."""

from gateway.scheduling.admission_queue import AdmissionQueue
from gateway.scheduling.backend_ledger import BackendLedger, BackendState
from gateway.scheduling.capacity import Capacity
from gateway.scheduling.snapshot import BackendSnapshot, QueueSnapshot, SchedulerSnapshot


def take_snapshot(
    *,
    pool: str,
    draining: bool,
    tracked_requests: int,
    ignored_events: int,
    parts: tuple[AdmissionQueue, BackendLedger, Capacity],
    now: float,
) -> SchedulerSnapshot:
    """Copy everything a reader may want; later events do not change it."""
    queue, ledger, capacity = parts
    return SchedulerSnapshot(
        pool=pool,
        draining=draining,
        tracked_requests=tracked_requests,
        queued_requests=queue.requests,
        queued_bytes=queue.bytes,
        queues=tuple(
            QueueSnapshot(priority=priority, service=service, requests=depth)
            for (priority, service), depth in queue.depth_by_service().items()
        ),
        backends=tuple(
            _backend(b, full=capacity.is_full(b, now=now), now=now) for b in ledger.backends
        ),
        ignored_events=ignored_events,
    )


def _backend(backend: BackendState, *, full: bool, now: float) -> BackendSnapshot:
    return BackendSnapshot(
        backend_id=backend.id,
        usable=backend.usable,
        draining=backend.draining,
        full=full,
        requests=len(backend.in_flight),
        sequences=backend.sequences,
        decoding=backend.decoding,
        context_tokens=backend.context_tokens,
        pending_prefill_tokens=backend.pending_prefill_tokens,
        kv_reserved_tokens=backend.kv_reserved_tokens,
        external_running=backend.external_running,
        active_adapters=dict(backend.adapters.active),
        resident_adapters=backend.adapters.resident,
        max_loras=backend.adapters.max_loras,
        reported_running=backend.load.running,
        reported_waiting=backend.load.waiting,
        reported_kv_usage=backend.load.kv_usage,
        report_age_s=None if backend.load_taken_at is None else now - backend.load_taken_at,
    )
