"""From the words of the configuration to the policies that the other parts are built from."""

from gateway.scheduling.model import (
    LatencyObjective,
    LLMServerPool,
    LLMService,
    ServiceName,
    TargetModel,
)
from gateway.scheduling.policy import (
    BreakerPolicy,
    CapacityPolicy,
    FairnessPolicy,
    PickerPolicy,
    QueuePolicy,
    RetryPolicy,
    SchedulingPolicy,
)
from gateway.settings.schema import ObjectiveSettings, PoolSettings, ServiceSettings, Settings
from gateway.wire.credentials import KeyPolicy
from gateway.wire.http_headers import CredentialPolicy, ForwardingPolicy


def scheduling_policies(settings: Settings) -> dict[str, SchedulingPolicy]:
    """The policy of each pool, by the pool's name."""
    return {pool.name: _policy(pool) for pool in settings.effective_pools()}


def forwarding_policy(pool: PoolSettings, *, requires_keys: bool = False) -> ForwardingPolicy:
    """What happens to clients' headers on the way to the servers of an effective pool.

    Where clients need a key of this gateway, `requires_keys`, it is not for the servers to see.
    """
    if pool.upstream_api_key is None:
        credentials = CredentialPolicy(pool.upstream_authorization)
        return ForwardingPolicy(
            credentials=CredentialPolicy.DROP if requires_keys else credentials,
            forwards_steering=pool.forward_steering_headers,
        )
    return ForwardingPolicy(
        credentials=CredentialPolicy.REPLACE,
        authorization=f"Bearer {pool.upstream_api_key.get_secret_value()}",
        forwards_steering=pool.forward_steering_headers,
    )


def key_policies(settings: Settings) -> list[KeyPolicy]:
    """The clients' API keys."""
    return [
        KeyPolicy(
            name=key.name,
            digests=tuple(map(bytes.fromhex, key.sha256)),
            services=None if key.services is None else frozenset(map(ServiceName, key.services)),
            requests_per_minute=key.requests_per_minute,
            tokens_per_minute=key.tokens_per_minute,
        )
        for key in settings.api_keys
    ]


def _policy(pool: PoolSettings) -> SchedulingPolicy:
    return SchedulingPolicy(
        pool=LLMServerPool(
            name=pool.name,
            services=tuple(_service(service) for service in pool.services),
            default_objective=LatencyObjective(
                ttft_s=pool.default_objective.ttft, tpot_s=pool.default_objective.tpot
            ),
            accept_unregistered_models=pool.accept_unregistered_models,
            trusts_client_slo=pool.trust_client_slo,
        ),
        queue=QueuePolicy(
            max_requests=pool.queue_max_requests,
            max_bytes=pool.queue_max_bytes,
            max_non_critical_requests=pool.queue_max_non_critical_requests,
            timeout_s=pool.queue_timeout,
            preempts=pool.preempt_non_critical,
        ),
        retry=RetryPolicy(
            max_attempts=pool.retry_max_attempts,
            budget_ratio=pool.retry_budget_ratio,
            budget_burst=pool.retry_budget_burst,
        ),
        breaker=BreakerPolicy(
            consecutive_failures=pool.eject_after_failures,
            failure_share=pool.eject_failure_share,
            min_requests=pool.eject_min_requests,
            slow_factor=pool.eject_slow_factor,
            first_ejection_s=pool.eject_time,
            longest_ejection_s=pool.eject_max_time,
            max_ejected_share=pool.max_ejected_share,
        ),
        capacity=CapacityPolicy(
            max_requests_per_backend=pool.max_requests_per_backend,
            max_engine_waiting=pool.max_engine_waiting,
            default_max_loras=pool.default_max_loras,
            chunk_budget_tokens=pool.prefill_chunk_tokens,
            engine_backlog_steps=pool.engine_backlog_steps,
            margin_critical=pool.margin_critical,
            margin_non_critical=pool.margin_non_critical,
            margin_late=pool.margin_late,
        ),
        fairness=FairnessPolicy(
            dimension=pool.fairness_dimension,
            window_s=pool.fairness_window,
            tolerance=pool.fairness_tolerance,
            neutral_requests=pool.fairness_neutral_requests,
            late_share=pool.fairness_late_share,
            sub_flows=pool.fairness_ids,
        ),
        picker=PickerPolicy(
            kind=pool.picker,
            cold_adapter_cost=pool.picker_cold_adapter_cost,
            miss_cost=pool.picker_miss_cost,
            slot_price=pool.picker_slot_price,
            load_price=pool.picker_load_price,
            prefill_price_per_s=pool.picker_prefill_price,
            copy_price_per_s=pool.picker_copy_price,
            tie_tolerance=pool.picker_tie_tolerance,
        ),
    )


def _service(service: ServiceSettings) -> LLMService:
    return LLMService(
        name=ServiceName(service.name),
        model=service.model,
        targets=tuple(TargetModel(target.name, target.weight) for target in service.targets),
        objective=_objective(service.objective) if service.objective else None,
        priority=service.priority,
        fairness_weight=service.fairness_weight,
        max_queue_wait_s=service.max_queue_wait,
        max_share=service.max_share,
    )


def _objective(objective: ObjectiveSettings) -> LatencyObjective:
    """The target is the highest percentile of the bounds that are set."""
    percentiles = [
        own or objective.percentile
        for bound, own in (
            (objective.ttft, objective.ttft_percentile),
            (objective.tpot, objective.tpot_percentile),
            (objective.ntpot, objective.ntpot_percentile),
        )
        if bound is not None
    ]
    return LatencyObjective(
        ttft_s=objective.ttft,
        tpot_s=objective.tpot,
        ntpot_s=objective.ntpot,
        percentile=max(percentiles),
    )
