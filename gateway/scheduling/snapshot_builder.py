"""Makes a SchedulerSnapshot from the live parts. Looking changes nothing that is decided later."""

from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.breakers import BreakerState
from gateway.scheduling.capacity import Capacity
from gateway.scheduling.forecast_error import ForecastError
from gateway.scheduling.model import LLMService
from gateway.scheduling.scheduler_parts import Knowledge, Rules
from gateway.scheduling.server_timing import ServerTiming
from gateway.scheduling.slo_adherence import SloAdherence
from gateway.scheduling.snapshot import (
    BackendSnapshot,
    ForecastQuality,
    QueueSnapshot,
    SchedulerSnapshot,
    ServiceSnapshot,
    StepCosts,
)


def take_snapshot(
    *,
    knowledge: Knowledge,
    rules: Rules,
    draining: bool,
    tracked_requests: int,
    ignored_events: int,
    now: float,
) -> SchedulerSnapshot:
    """Copy everything a reader may want; later events do not change it."""
    queue = knowledge.queue
    return SchedulerSnapshot(
        pool=rules.policy.pool.name,
        fairness_window_s=rules.policy.fairness.window_s,
        draining=draining,
        panic=knowledge.breakers.panic,
        tracked_requests=tracked_requests,
        queued_requests=queue.requests,
        queued_bytes=queue.bytes,
        queues=tuple(
            QueueSnapshot(priority=priority, service=service, requests=depth)
            for (priority, service), depth in queue.depth_by_service().items()
        ),
        services=tuple(
            _service(service, knowledge.adherence, now=now)
            for service in knowledge.services.services
        ),
        backends=tuple(
            _backend(
                backend,
                knowledge.predictor.known_timing(backend.id),
                knowledge.breakers.state_of(backend),
                capacity=rules.capacity,
                now=now,
            )
            for backend in knowledge.ledger.backends
        ),
        ignored_events=ignored_events,
    )


def _service(service: LLMService, adherences: SloAdherence, *, now: float) -> ServiceSnapshot:
    burn = adherences.burn(service, now=now)  # forgets what is older than the window
    adherence = adherences.of(service.name)
    ended, missed = adherence.all_ended, adherence.all_missed
    return ServiceSnapshot(
        service=service.name,
        priority=service.priority,
        objective=service.objective,
        target=None if service.objective is None else service.objective.percentile,
        attainment=1.0 - missed / ended if ended else None,
        ended=ended,
        missed=missed,
        judged_total=adherence.judged_total,
        missed_total=adherence.missed_total,
        in_flight=adherence.in_flight,
        expected_misses=max(0.0, adherence.expected_misses),  # a sum of floats added and taken off
        burn=burn,
    )


def _backend(
    backend: BackendState,
    timing: ServerTiming | None,
    health: BreakerState,
    *,
    capacity: Capacity,
    now: float,
) -> BackendSnapshot:
    return BackendSnapshot(
        backend_id=backend.id,
        usable=backend.usable,
        draining=backend.draining,
        full=capacity.is_full(backend, now=now),
        saturation=capacity.saturation(backend),
        circuit=health.circuit,
        ejected=backend.ejected,
        ejections=health.ejections,
        failure_rate=backend.failure_rate,
        failures=health.failures,
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
        ttft_forecasts=_quality(timing.ttft_error if timing else None),
        tpot_forecasts=_quality(timing.told_error if timing else None),
        forecast_trust=timing.trust if timing else 0.0,
        step_costs=_step_costs(timing) if timing else None,
    )


def _quality(error: ForecastError | None) -> ForecastQuality:
    if error is None or not error.samples:
        return ForecastQuality()
    return ForecastQuality(
        samples=error.samples, relative_error=error.relative, p90_coverage=error.coverage
    )


def _step_costs(timing: ServerTiming) -> StepCosts:
    return StepCosts(
        overhead_s=timing.prefill.overhead_s,
        step_s=timing.decode.step_s,
        per_sequence_s=timing.decode.per_sequence_s,
        per_context_token_s=timing.decode.per_context_token_s,
        per_prefill_token_s=timing.prefill.per_token_s,
        adapter_load_s=timing.adapter_load_s,
    )
